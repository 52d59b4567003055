"""Reductions of a tensor with a dimension of size 0.

Measured with MNN 3.6.1: ReduceMax and ReduceMin are a SIGSEGV at run time.

ReduceSum, which is right there, gives the shape and zeros; what the largest of nothing is in the dtype is
added.  The same bits.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from mnnprep.repair.rule import Match, Rewrite, Rule
from mnnprep.repair.support.building import FLOATS, Builder, given
from mnnprep.repair.support.editor import Editor
from mnnprep.repair.support.opsets import INPUTS_SINCE
from mnnprep.repair.support.reading import ModelView

if TYPE_CHECKING:
    import onnx_ir as ir

OPS = ("ReduceMax", "ReduceMin")
REPAIRED = (*FLOATS[:3], "INT32", "INT64", "BOOL")


def _find(view: ModelView) -> list[Match[str]]:
    found = [(node, opset) for node, opset in view.nodes(*OPS) if 0 in (view.dims(node.inputs[0]) or ())]
    return [_match_of(node, opset, view) for node, opset in found]


def _match_of(node: ir.Node, opset: int, view: ModelView) -> Match[str]:
    dtype = view.dtype(node.inputs[0])
    return Match(
        at=node,
        opset=opset,
        found=dtype,
        repairable=dtype in REPAIRED and opset >= INPUTS_SINCE["ReduceMax"] and _simple(node, view),
    )


def _simple(node: ir.Node, view: ModelView) -> bool:
    """Whether the axes are left out, or surely not none."""
    axes = given(node, 1)
    size = (view.dims(axes) or (0,))[0] if axes is not None else 1
    return isinstance(size, int) and size > 0


def _apply(editor: Editor, match: Match[str]) -> bool:
    node, opset, dtype = match.node, match.opset, match.plan
    build = Builder(editor, node, opset)
    x, sign = node.inputs[0], 1 if node.op_type == "ReduceMin" else -1
    axes = [given(node, 1)] if given(node, 1) is not None else []
    total = build.op(
        "ReduceSum",
        build.cast(x, "INT32") if dtype == "BOOL" else x,
        *axes,
        keepdims=node.attributes.get_int("keepdims", 1),
    )
    if dtype == "BOOL":
        build.replace(
            build.cast(total if sign < 0 else build.op("Add", total, build.constant(1, "INT32")), "BOOL")
        )
        return True
    whole = np.iinfo(np.int32 if dtype == "INT32" else np.int64)
    nothing = sign * np.inf if dtype in FLOATS else whole.max if sign > 0 else whole.min
    build.replace(build.op("Add", total, build.constant(np.array(nothing), dtype)))
    return True


RULE = Rule(
    name="reduce-nothing",
    severity="crash",
    operators=frozenset(OPS),
    find=_find,
    rewrite=Rewrite(apply=_apply, exact=True),
    hazard="MNN crashes in ReduceMax and ReduceMin of a tensor of size 0",
    remedy="avoid dimensions of size 0",
)
