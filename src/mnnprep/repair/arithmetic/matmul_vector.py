"""MatMul with a constant vector on the right.

Measured with MNN 3.6.1: no output, or a crash at run time; with a computed vector it is right.

The vector becomes a matrix of one column, whose axis is taken out of the product: numerically equal.
"""

from __future__ import annotations

from mnnprep.repair.rule import Match, Rewrite, Rule
from mnnprep.repair.support.building import Builder
from mnnprep.repair.support.editor import Editor
from mnnprep.repair.support.reading import Array, ModelView, tensor


def _find(view: ModelView) -> list[Match[tuple[Array, int]]]:
    vectors = [(node, opset, tensor(node.inputs[1])) for node, opset in view.nodes("MatMul")]
    return [
        Match(
            at=node,
            opset=opset,
            found=(vector.numpy(), rank) if (rank := view.rank(node.inputs[0])) else None,
            repairable=bool(rank),
        )
        for node, opset, vector in vectors
        if vector is not None and len(vector.shape) == 1
    ]


def _apply(editor: Editor, match: Match[tuple[Array, int]]) -> bool:
    node, opset, (vector, rank) = match.node, match.opset, match.plan
    build, left = Builder(editor, node, opset), node.inputs[0]
    column = build.constant(vector.reshape(-1, 1))
    if rank == 1:
        build.replace(build.squeeze(build.op("MatMul", build.unsqueeze(left, 0), column), 0, 1))
    else:
        build.replace(build.squeeze(build.op("MatMul", left, column), rank - 1))
    return True


RULE = Rule(
    name="matmul-vector",
    severity="wrong",
    operators=frozenset({"MatMul"}),
    find=_find,
    rewrite=Rewrite(apply=_apply, exact=False),
    hazard="MNN gives nothing, or crashes, in a MatMul with a constant vector on the right",
    remedy="make the vector a matrix of one column, and squeeze the product",
)
