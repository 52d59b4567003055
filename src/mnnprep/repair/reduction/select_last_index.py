"""ArgMax and ArgMin with select_last_index=1.

Measured with MNN 3.6.1: the first of equal values is given.

The axis is reversed by a Gather, if its size is fixed, and the index counted from the end.  The same
integers.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from mnnprep.repair.rule import Match, Rewrite, Rule
from mnnprep.repair.support.building import Builder
from mnnprep.repair.support.editor import Editor
from mnnprep.repair.support.reading import ModelView

if TYPE_CHECKING:
    import onnx_ir as ir

OPS = ("ArgMax", "ArgMin")


def _find(view: ModelView) -> list[Match[tuple[int, int]]]:
    return [
        _match_of(node, opset, view)
        for node, opset in view.nodes(*OPS)
        if node.attributes.get_int("select_last_index", 0)
    ]


def _match_of(node: ir.Node, opset: int, view: ModelView) -> Match[tuple[int, int]]:
    dims, axis = view.dims(node.inputs[0]), node.attributes.get_int("axis", 0)
    size = dims[axis] if dims is not None else None
    return Match(
        at=node,
        opset=opset,
        found=(axis, size) if isinstance(size, int) else None,
        repairable=isinstance(size, int),
    )


def _apply(editor: Editor, match: Match[tuple[int, int]]) -> bool:
    node, opset, (axis, size) = match.node, match.opset, match.plan
    build = Builder(editor, node, opset)
    reversed_x = build.op("Gather", node.inputs[0], build.constant(np.arange(size - 1, -1, -1)), axis=axis)
    index = build.op(node.op_type, reversed_x, axis=axis, keepdims=node.attributes.get_int("keepdims", 1))
    build.replace(build.op("Sub", build.constant(np.array(size - 1)), index))
    return True


RULE = Rule(
    name="select-last-index",
    severity="wrong",
    operators=frozenset(OPS),
    find=_find,
    rewrite=Rewrite(apply=_apply, exact=True),
    hazard="MNN gives the first of equal values in ArgMax and ArgMin with select_last_index=1",
    remedy="reverse the axis before, and count the index from its end",
)
