"""MatMul with a constant vector on the right.

Measured with MNN 3.6.1: no output, or a crash at run time; with a computed vector it is right.
"""

from __future__ import annotations

from mnnprep.rules.reading import Reading, tensor
from mnnprep.rules.rule import Place, Rule


def find(reading: Reading) -> list[Place]:
    vectors = [(node, tensor(node.inputs[1])) for node, _ in reading.nodes("MatMul")]
    return [Place(node=node) for node, vector in vectors if vector is not None and len(vector.shape) == 1]


RULE = Rule(
    name="matmul-vector", severity="wrong", operators=frozenset({"MatMul"}), find=find,
    hazard="MNN gives nothing, or crashes, in a MatMul with a constant vector on the right",
    remedy="make the vector a matrix of one column, and squeeze the product",
)  # fmt: skip
