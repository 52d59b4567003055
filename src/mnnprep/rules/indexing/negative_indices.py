"""GatherElements and ScatterElements with negative indices that are constants.

Measured with MNN 3.6.1: they are not counted from the end. Gather, GatherND and Slice do it right.
"""

from __future__ import annotations

from mnnprep.rules.reading import Reading, tensor
from mnnprep.rules.rule import Place, Rule

OPS = ("GatherElements", "ScatterElements", "Scatter")


def find(reading: Reading) -> list[Place]:
    found = [(node, tensor(node.inputs[1])) for node, _ in reading.nodes(*OPS)]
    return [Place(node=node) for node, indices in found if indices is not None and bool((indices.numpy() < 0).any())]


RULE = Rule(
    name="negative-indices", severity="wrong", operators=frozenset(OPS), find=find,
    hazard="MNN does not count negative indices from the end in GatherElements and ScatterElements",
    remedy="make the indices non-negative",
)  # fmt: skip
