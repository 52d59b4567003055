"""Conv over three dimensions with dilations, and ConvTranspose over three.

Measured with MNN 3.6.1: the dilations are not read; ConvTranspose gives a size of 0.
"""

from __future__ import annotations

from collections.abc import Iterator

from mnnprep.rules.reading import Reading
from mnnprep.rules.rule import Place, Rule

OPS = ("Conv", "ConvTranspose")


def find(reading: Reading) -> Iterator[Place]:
    for node, _ in reading.nodes(*OPS):
        if (reading.rank(node.inputs[1]) or reading.rank(node.inputs[0])) != 5:
            continue
        if node.op_type == "ConvTranspose" or any(d != 1 for d in node.attributes.get_ints("dilations", ())):
            yield Place(node=node)


RULE = Rule(
    name="conv3d-forms", severity="wrong", operators=frozenset(OPS), find=find,
    hazard="MNN computes a Conv over three dimensions without its dilations, and no ConvTranspose over three",
    remedy="avoid dilations there, or split the depth into slices",
)  # fmt: skip
