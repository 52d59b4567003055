"""Pooling with dilations.

Measured with MNN 3.6.1: they are not read: another shape, and other windows.
"""

from __future__ import annotations

from mnnprep.rules.reading import Reading
from mnnprep.rules.rule import Place, Rule

OPS = ("MaxPool", "AveragePool", "LpPool")


def find(reading: Reading) -> list[Place]:
    return [Place(node=node) for node, _ in reading.nodes(*OPS) if any(d != 1 for d in node.attributes.get_ints("dilations", ()))]


RULE = Rule(
    name="pool-dilations", severity="wrong", operators=frozenset(OPS), find=find,
    hazard="MNN does not read the dilations of pooling",
    remedy="gather the windows by strided slices, or pool without dilations",
)  # fmt: skip
