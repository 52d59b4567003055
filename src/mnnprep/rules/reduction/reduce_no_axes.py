"""Reductions whose axes are an input of size 0.

That stands for all axes (or, with noop_with_empty_axes=1, for none). Measured with MNN 3.6.1: nothing is reduced in the
first case, all in the second.
"""

from __future__ import annotations

from mnnprep.rules.reading import Reading
from mnnprep.rules.rule import Place, Rule

OPS = ("ReduceSum", "ReduceMean", "ReduceMax", "ReduceMin", "ReduceProd")


def find(reading: Reading) -> list[Place]:
    found = [node for node, _ in reading.nodes(*OPS) if len(node.inputs) > 1 and node.inputs[1] is not None]
    return [Place(node=node) for node in found if reading.dims(node.inputs[1]) == (0,)]


RULE = Rule(
    name="reduce-no-axes", severity="wrong", operators=frozenset(OPS), find=find,
    hazard="MNN takes an empty list of axes the other way round: nothing is reduced where all must be",
    remedy="leave the input of axes out, or list all of them",
)  # fmt: skip
