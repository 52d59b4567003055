"""Reductions whose axes are an input of size 0, or left out with noop_with_empty_axes=1.

That stands for all axes (or, with noop_with_empty_axes=1, for none). Measured with MNN 3.6.1: nothing is
reduced in the first case, all in the second.

The input is left out, or the node becomes an Identity.  The same bits.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from mnnprep.repair.rule import Match, Rewrite, Rule
from mnnprep.repair.support.building import Builder, given
from mnnprep.repair.support.editor import Editor
from mnnprep.repair.support.reading import ModelView

if TYPE_CHECKING:
    import onnx_ir as ir

OPS = ("ReduceSum", "ReduceMean", "ReduceMax", "ReduceMin", "ReduceProd")


def _find(view: ModelView) -> list[Match[None]]:
    return [Match(at=node, opset=opset) for node, opset in view.nodes(*OPS) if _has_no_axes(node, view)]


def _has_no_axes(node: ir.Node, view: ModelView) -> bool:
    axes = given(node, 1)
    if axes is None:
        return "axes" not in node.attributes and bool(node.attributes.get_int("noop_with_empty_axes", 0))
    return view.dims(axes) == (0,)


def _apply(editor: Editor, match: Match[None]) -> bool:
    node = match.node
    build = Builder(editor, node, match.opset)
    if node.attributes.get_int("noop_with_empty_axes", 0):
        build.replace(build.op("Identity", node.inputs[0]))
    else:
        build.replace(build.op(node.op_type, node.inputs[0], keepdims=node.attributes.get_int("keepdims", 1)))
    return True


RULE = Rule(
    name="reduce-no-axes",
    severity="wrong",
    operators=frozenset(OPS),
    find=_find,
    rewrite=Rewrite(apply=_apply, exact=True),
    hazard="MNN misreads an empty list of axes: it reduces nothing instead of everything, and the reverse",
    remedy="leave the input of axes out, or list all of them",
)
