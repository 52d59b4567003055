"""Reductions without ``keepdims``, but for Sum, Mean, Max, Min and Prod.

Measured with MNN 3.6.1: the default of 1 is not applied: the dimensions are gone.
"""

from __future__ import annotations

from mnnprep.rules.reading import Reading
from mnnprep.rules.rule import Place, Rule

OPS = ("ReduceL1", "ReduceL2", "ReduceLogSum", "ReduceLogSumExp", "ReduceSumSquare")


def find(reading: Reading) -> list[Place]:
    return [Place(node=node) for node, _ in reading.nodes(*OPS) if "keepdims" not in node.attributes]


RULE = Rule(
    name="reduce-keepdims", severity="wrong", operators=frozenset(OPS), find=find,
    hazard="MNN does not apply the default keepdims=1 of ReduceL1, L2, LogSum, LogSumExp and SumSquare",
    remedy="write keepdims out",
)  # fmt: skip
