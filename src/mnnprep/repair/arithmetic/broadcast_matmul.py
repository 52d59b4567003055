"""MatMul whose batch dimensions broadcast.

Measured with MNN 3.6.1, on 300 products in nets of changing shapes: if both operands have at least three
dimensions and one has four or more, and a batch dimension of one operand is broadcast, the numbers are often
garbage (1e30, NaN), mostly after a change of shape, with five dimensions also at the first run, and with a
constant operand too. With equal batch dimensions, with three dimensions each, or with a matrix as one
operand, they were always right.

Each operand is expanded to the other's batch dimensions first, which leaves nothing to broadcast; then they
were always right.  The values multiplied are the same ones in the same order.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from mnnprep.repair.rule import Match, Rewrite, Rule
from mnnprep.repair.support.editor import Editor
from mnnprep.repair.support.opsets import INPUTS_SINCE, SINCE
from mnnprep.repair.support.reading import ModelView, producer, tensor

if TYPE_CHECKING:
    import onnx_ir as ir

    from mnnprep.repair.support.reading import Operand

NAME = "broadcast-matmul"


def _find(view: ModelView) -> list[Match[None]]:
    found = [(node, opset) for node, opset in view.nodes("MatMul") if opset >= SINCE["Expand"]]
    return [
        Match(at=node, opset=opset)
        for node, opset in found
        if _may_broadcast(node.inputs[0], node.inputs[1], view)
    ]


def _apply(editor: Editor, match: Match[None]) -> bool:
    node, opset = match.node, match.opset
    left, right = node.inputs
    targets = [_batch(editor, node, other, opset) for other in (right, left)]
    for index, (value, target) in enumerate(zip((left, right), targets, strict=True)):
        node.replace_input_with(index, editor.add(node, "Expand", value, target))
    return True


def _may_broadcast(left: Operand, right: Operand, view: ModelView) -> bool:
    """Whether the batch dimensions are not known to be equal, in the ranks at which MNN goes wrong."""
    if tensor(left) is not None and tensor(right) is not None:
        return False  # computed once, by the converter
    ranks = view.shapes.rank_at_least(left), view.shapes.rank_at_least(right)
    if min(ranks) < 3 or max(ranks) < 4:
        return False
    a, b = view.dims(left), view.dims(right)
    same = (
        a is not None
        and b is not None
        and len(a) == len(b)
        and all(m is not None and m == n for m, n in zip(a[:-2], b[:-2], strict=True))
    )
    return not same and not (_is_expanded(left) and _is_expanded(right))


def _is_expanded(value: Operand) -> bool:
    """Whether *value* was expanded to another's batch dimensions, as this rule does."""
    expand = producer(value, "Expand")
    concat = producer(expand.inputs[1], "Concat") if expand is not None else None
    part = producer(concat.inputs[0], "Slice") if concat is not None else None
    return part is not None and producer(part.inputs[0], "Shape") is not None


def _batch(editor: Editor, node: ir.Node, value: Operand, opset: int) -> ir.Value:
    """The shape of *value* with its last two dimensions, those of the matrices, set to 1."""
    shape = editor.add(node, "Shape", value)
    if opset >= INPUTS_SINCE["Slice"]:
        batch = editor.add(
            node, "Slice", shape, *(editor.constant(node, np.array([bound], np.int64)) for bound in (0, -2))
        )
    else:
        batch = editor.add(node, "Slice", shape, starts=[0], ends=[-2])
    return editor.add(node, "Concat", batch, editor.constant(node, np.array([1, 1], np.int64)), axis=0)


RULE = Rule(
    name=NAME,
    hazard=(
        "MNN computes wrong values in a MatMul that broadcasts batch dimensions, mostly after a change of"
        " shape"
    ),
    severity="wrong",
    operators=frozenset({"MatMul"}),
    find=_find,
    rewrite=Rewrite(apply=_apply, exact=True),
    remedy="expand both operands to the same batch dimensions before the product",
)
