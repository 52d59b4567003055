"""Reductions with their axes as an input (opset 18), but for Sum, Mean, Max, Min and Prod.

Measured with MNN 3.6.1: the input is not read, and everything is reduced.

They are written out with ReduceSum, whose axes MNN reads, and for LogSumExp with the maximum taken out first.
Numerically equal: a sum in another order, or in float32, may differ in the last bits.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from mnnprep.repair.rule import Match, Rewrite, Rule
from mnnprep.repair.support.building import FLOATS, Builder, given, numbers
from mnnprep.repair.support.editor import Editor
from mnnprep.repair.support.reading import ModelView, tensor

if TYPE_CHECKING:
    import onnx_ir as ir

    from mnnprep.repair.support.reading import Operand

OPS = ("ReduceL1", "ReduceL2", "ReduceLogSum", "ReduceLogSumExp", "ReduceSumSquare")
FINITE = {"FLOAT16": float(np.finfo(np.float16).max), "DOUBLE": float(np.finfo(np.float64).max)}
LARGEST = float(np.finfo(np.float32).max)


def _find(view: ModelView) -> list[Match[tuple[str, bool]]]:
    found = [
        (node, opset)
        for node, opset in view.nodes(*OPS)
        if len(node.inputs) > 1 and node.inputs[1] is not None
    ]
    return [_match_of(node, opset, view) for node, opset in found if view.dims(node.inputs[1]) != (0,)]


def _match_of(node: ir.Node, opset: int, view: ModelView) -> Match[tuple[str, bool]]:
    dtype = view.dtype(node.inputs[0])
    axes, dims = tensor(node.inputs[1]), view.dims(node.inputs[0])
    empty = dims is not None and 0 in dims
    able = dtype in FLOATS or node.op_type in ("ReduceL1", "ReduceSumSquare")
    able = able and (axes is not None or not node.attributes.get_int("noop_with_empty_axes", 0))
    return Match(at=node, opset=opset, found=(dtype, empty), repairable=able)


def _apply(editor: Editor, match: Match[tuple[str, bool]]) -> bool:
    node, opset, (dtype, empty) = match.node, match.opset, match.plan
    build = Builder(editor, node, opset)
    x, axes = node.inputs[0], given(node, 1)
    keep = node.attributes.get_int("keepdims", 1)
    kind = node.op_type
    if kind == "ReduceLogSumExp" and not empty:
        build.replace(_log_sum_exp(build, x, axes, keep, dtype))
        return True
    total = build.op("ReduceSum", _summand(build, x), axes, keepdims=keep)
    build.replace(
        build.op("Sqrt" if kind == "ReduceL2" else "Log", total)
        if kind in ("ReduceL2", "ReduceLogSum", "ReduceLogSumExp")
        else total
    )
    return True


def _summand(build: Builder, x: Operand) -> Operand:
    """Return what the reduction sums."""
    kind = build.node.op_type
    if kind == "ReduceLogSum":
        return x
    if kind in ("ReduceL2", "ReduceSumSquare"):
        return build.op("Mul", x, x)
    return build.op("Abs" if kind == "ReduceL1" else "Exp", x)


def _log_sum_exp(build: Builder, x: Operand, axes: Operand, keep: int, dtype: str) -> ir.Value:
    """With the largest, if it is finite, taken out first, as onnxruntime does."""
    largest = FINITE.get(dtype, LARGEST)
    top = build.op("ReduceMax", x, axes, keepdims=1)
    top = build.op(
        "Min",
        build.op("Max", top, build.constant(np.array(-largest), dtype)),
        build.constant(np.array(largest), dtype),
    )
    total = build.op(
        "Log", build.op("ReduceSum", build.op("Exp", build.op("Sub", x, top)), axes, keepdims=keep)
    )
    if keep:
        return build.op("Add", total, top)
    known = tensor(axes)
    flat = (
        build.squeeze(top, *numbers(known.numpy())) if known is not None else build.op("Squeeze", top, axes)
    )
    return build.op("Add", total, flat)


RULE = Rule(
    name="reduce-axes",
    severity="wrong",
    operators=frozenset(OPS),
    find=_find,
    rewrite=Rewrite(apply=_apply, exact=False),
    hazard=("MNN reduces over all axes if ReduceL1, L2, LogSum, LogSumExp or SumSquare has them as an input"),
    remedy="export at opset 17, where they are an attribute",
)
