"""MatMul with a constant vector on the right, or with a vector on both sides.

Measured with MNN 3.6.1: a constant vector on the right gives no output, or a crash at run time; with a
computed vector it is right. The product of two vectors writes beyond its memory: most runs are right, and
others crash at some later place.

The vectors become matrices of one row and one column, whose axes are taken out of the product: numerically
equal.
"""

from __future__ import annotations

from mnnprep.repair.rule import Match, Rewrite, Rule
from mnnprep.repair.support.building import Builder, fed
from mnnprep.repair.support.editor import Editor
from mnnprep.repair.support.reading import ModelView, tensor


def _find(view: ModelView) -> list[Match[int]]:
    found = []
    for node, opset in view.nodes("MatMul"):
        left, right = view.rank(node.inputs[0]), view.rank(node.inputs[1])
        if right == 1 and (left == 1 or tensor(node.inputs[1]) is not None):
            found.append(Match(at=node, opset=opset, found=left, repairable=bool(left)))
    return found


def _apply(editor: Editor, match: Match[int]) -> bool:
    node, opset, rank = match.node, match.opset, match.plan
    build, left = Builder(editor, node, opset), fed(node, 0)
    column = build.unsqueeze(fed(node, 1), 1)
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
    rewrite=Rewrite(apply=_apply, exact=False, always=True),
    hazard=(
        "MNN gives nothing, or crashes, in a MatMul with a constant vector on the right, and in some runs of"
        " one with two vectors"
    ),
    remedy="make the vector a matrix of one column, and squeeze the product",
)
