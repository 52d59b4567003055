"""MatMul with a constant vector on the right.

Measured with MNN 3.6.1: no output, or a crash at run time; with a computed vector it is right.

The vector becomes a matrix of one column, whose axis is taken out of the product: numerically equal.
"""

from __future__ import annotations

from mnnprep.rules.building import Builder
from mnnprep.rules.editor import Editor
from mnnprep.rules.reading import Reading, tensor
from mnnprep.rules.rule import Place, Rewrite, Rule


def find(reading: Reading) -> list[Place]:
    vectors = [(node, opset, tensor(node.inputs[1])) for node, opset in reading.nodes("MatMul")]
    return [
        Place(
            node=node,
            match=(opset, vector, reading.rank(node.inputs[0])),
            repairable=bool(reading.rank(node.inputs[0])),
        )
        for node, opset, vector in vectors
        if vector is not None and len(vector.shape) == 1
    ]


def apply(editor: Editor, place: Place) -> bool:
    node, (opset, vector, rank) = place.node, place.match
    build, left = Builder(editor, node, opset), node.inputs[0]
    column = build.constant(vector.numpy().reshape(-1, 1))
    if rank == 1:
        build.replace(build.squeeze(build.op("MatMul", build.unsqueeze(left, 0), column), 0, 1))
    else:
        build.replace(build.squeeze(build.op("MatMul", left, column), rank - 1))
    return True


RULE = Rule(
    name="matmul-vector",
    severity="wrong",
    operators=frozenset({"MatMul"}),
    find=find,
    rewrite=Rewrite(apply=apply, exact=False),
    hazard="MNN gives nothing, or crashes, in a MatMul with a constant vector on the right",
    remedy="make the vector a matrix of one column, and squeeze the product",
)
