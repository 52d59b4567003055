"""ArgMax and ArgMin with select_last_index=1.

Measured with MNN 3.6.1: the first of equal values is given.
"""

from __future__ import annotations

from mnnprep.rules.reading import Reading
from mnnprep.rules.rule import Place, Rule

OPS = ("ArgMax", "ArgMin")


def find(reading: Reading) -> list[Place]:
    return [Place(node=node) for node, _ in reading.nodes(*OPS) if node.attributes.get_int("select_last_index", 0)]


RULE = Rule(
    name="select-last-index", severity="wrong", operators=frozenset(OPS), find=find,
    hazard="MNN gives the first of equal values in ArgMax and ArgMin with select_last_index=1",
    remedy="reverse the axis before, and count the index from its end",
)  # fmt: skip
