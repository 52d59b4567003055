"""Pooling without ``strides``.

Measured with MNN 3.6.1: the default of 1 is not applied: SIGFPE in one and two dimensions, SIGSEGV in three, no output with auto_pad.
"""

from __future__ import annotations

from mnnprep.rules.reading import Reading
from mnnprep.rules.rule import Place, Rule

OPS = ("MaxPool", "AveragePool", "LpPool")


def find(reading: Reading) -> list[Place]:
    return [Place(node=node) for node, _ in reading.nodes(*OPS) if "strides" not in node.attributes]


RULE = Rule(
    name="pool-strides", severity="crash", operators=frozenset(OPS), find=find,
    hazard="MNN does not apply the default strides of pooling, and crashes",
    remedy="write the strides out",
)  # fmt: skip
