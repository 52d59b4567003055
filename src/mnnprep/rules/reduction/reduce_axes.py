"""Reductions with their axes as an input (opset 18), but for Sum, Mean, Max, Min and Prod.

Measured with MNN 3.6.1: the input is not read, and everything is reduced.
"""

from __future__ import annotations

from mnnprep.rules.reading import Reading
from mnnprep.rules.rule import Place, Rule

OPS = ("ReduceL1", "ReduceL2", "ReduceLogSum", "ReduceLogSumExp", "ReduceSumSquare")


def find(reading: Reading) -> list[Place]:
    found = [node for node, _ in reading.nodes(*OPS) if len(node.inputs) > 1 and node.inputs[1] is not None]
    return [Place(node=node) for node in found if reading.dims(node.inputs[1]) != (0,)]


RULE = Rule(
    name="reduce-axes", severity="wrong", operators=frozenset(OPS), find=find,
    hazard="MNN reduces over all axes where ReduceL1, L2, LogSum, LogSumExp or SumSquare has them as an input",
    remedy="export at opset 17, where they are an attribute",
)  # fmt: skip
