"""RoiAlign with mode=max, SpaceToDepth with mode=CRD.

Measured with MNN 3.6.1: the average is given in place of the maximum, and the order of SpaceToDepth is always DCR.
"""

from __future__ import annotations

from collections.abc import Iterator

from mnnprep.rules.reading import Reading
from mnnprep.rules.rule import Place, Rule

OPS = ("RoiAlign", "SpaceToDepth")


def find(reading: Reading) -> Iterator[Place]:
    for node, _ in reading.nodes(*OPS):
        if node.attributes.get_string("mode", "") in ("max", "CRD"):
            yield Place(node=node, detail=node.attributes.get_string("mode", ""))


RULE = Rule(
    name="region-forms", severity="wrong", operators=frozenset(OPS), find=find,
    hazard="MNN reads neither mode=max of RoiAlign nor mode=CRD of SpaceToDepth",
    remedy="use the average; write SpaceToDepth as Reshape and Transpose",
)  # fmt: skip
