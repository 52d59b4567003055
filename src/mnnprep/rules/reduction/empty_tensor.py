"""Reductions of a tensor with a dimension of size 0.

Measured with MNN 3.6.1: ReduceMax and ReduceMin are a SIGSEGV at run time.
"""

from __future__ import annotations

from mnnprep.rules.reading import Reading
from mnnprep.rules.rule import Place, Rule

OPS = ("ReduceSum", "ReduceMean", "ReduceMax", "ReduceMin", "ReduceProd")


def find(reading: Reading) -> list[Place]:
    return [Place(node=node) for node, _ in reading.nodes("ReduceMax", "ReduceMin") if 0 in (reading.dims(node.inputs[0]) or ())]


RULE = Rule(
    name="reduce-nothing", severity="crash", operators=frozenset(OPS), find=find,
    hazard="MNN crashes in ReduceMax and ReduceMin of a tensor of size 0",
    remedy="avoid dimensions of size 0",
)  # fmt: skip
