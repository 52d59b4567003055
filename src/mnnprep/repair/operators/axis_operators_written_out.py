"""Hardmax, CumProd and CenterCropPad, which MNN's converter does not read.

Measured with MNN 3.6.1: refused.  Hardmax becomes OneHot of ArgMax, CenterCropPad Slice and Pad: the same
bits.  CumProd becomes a product with itself moved on by 1, 2, 4 ...: numerically equal.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from mnnprep.repair.rule import Match, Rewrite, Rule
from mnnprep.repair.support.building import FLOATS, Builder, lacking, numbers, static
from mnnprep.repair.support.editor import Editor
from mnnprep.repair.support.opsets import ONE_AXIS, SINCE
from mnnprep.repair.support.reading import ModelView, scalar, tensor

if TYPE_CHECKING:
    import onnx_ir as ir

    from mnnprep.repair.support.reading import Operand

Sizes = tuple[int, ...]
OPEN = -1  # a size that is not fixed
OPS = ("Hardmax", "CumProd", "CenterCropPad")
PADDED = (*FLOATS, "INT32", "INT64")


def _find(view: ModelView) -> list[Match[tuple[Sizes, str]]]:
    return [_match_of(node, opset, view) for node, opset in lacking(view, *OPS)]


def _match_of(node: ir.Node, opset: int, view: ModelView) -> Match[tuple[Sizes, str]]:
    dims, dtype = view.dims(node.inputs[0]), view.dtype(node.inputs[0])
    sizes = static(dims)
    if node.op_type == "Hardmax":
        able = sizes is not None and dtype in FLOATS and opset >= SINCE["OneHot"]
    elif node.op_type == "CumProd":
        axis = 0.0 if dims is not None and len(dims) == 1 else scalar(node.inputs[1])
        able = axis is not None and dims is not None and isinstance(dims[int(axis)], int) and dtype in PADDED
    else:
        able = sizes is not None and tensor(node.inputs[1]) is not None and dtype in PADDED
    known = tuple(size if isinstance(size, int) else OPEN for size in dims or ())
    return Match(at=node, opset=opset, found=(known, dtype), repairable=able)


def _apply(editor: Editor, match: Match[tuple[Sizes, str]]) -> bool:
    node, opset, (sizes, dtype) = match.node, match.opset, match.plan
    build = Builder(editor, node, opset)
    written = {"Hardmax": _hardmax, "CumProd": _cumulative, "CenterCropPad": _centred}[node.op_type]
    build.replace(written(build, node.inputs[0], sizes, dtype))
    return True


def _hardmax(build: Builder, x: Operand, sizes: Sizes, dtype: str) -> ir.Value:
    axis = build.node.attributes.get_int("axis", -1 if build.opset >= ONE_AXIS else 1) % len(sizes)
    whole = build.opset < ONE_AXIS and axis != len(sizes) - 1
    if whole:
        x, size, axis = build.reshape(x, int(np.prod(sizes[:axis])), -1), int(np.prod(sizes[axis:])), 1
    else:
        size = sizes[axis]
    index = build.op("ArgMax", x, axis=axis, keepdims=0)
    found = build.op(
        "OneHot", index, build.constant(np.array(size)), build.constant(np.array([0, 1]), dtype), axis=axis
    )
    return build.reshape(found, *sizes) if whole else found


def _cumulative(build: Builder, x: Operand, sizes: Sizes, dtype: str) -> ir.Value:
    axis = int(scalar(build.node.inputs[1]) or 0) % len(sizes)  # of one dimension there is but one axis
    size, back = sizes[axis], bool(build.node.attributes.get_int("reverse", 0))

    def moved(value: Operand, by: int) -> ir.Value:
        extra = [by if number == axis else 0 for number in range(len(sizes))]
        none = [0] * len(sizes)
        padded = build.pad(value, *((none, extra) if back else (extra, none)), 1, dtype)
        return build.slice(padded, axis, by) if back else build.slice(padded, axis, 0, size)

    x = moved(x, 1) if build.node.attributes.get_int("exclusive", 0) else build.op("Identity", x)
    by = 1
    while by < size:
        x = build.op("Mul", x, moved(x, by))
        by *= 2
    return x


def _centred(build: Builder, x: Operand, sizes: Sizes, dtype: str) -> ir.Value:
    held = tensor(build.node.inputs[1])
    wanted = numbers(held.numpy()) if held is not None else []
    axes = [axis % len(sizes) for axis in build.node.attributes.get_ints("axes", range(len(sizes)))]
    before, after = [0] * len(sizes), [0] * len(sizes)
    x = build.op("Identity", x)
    for axis, target in zip(axes, wanted, strict=True):
        size = sizes[axis]
        if target < size:
            start = (size - target) // 2
            x = build.slice(x, axis, start, start + target)
        before[axis] = max(target - size, 0) // 2
        after[axis] = max(target - size, 0) - before[axis]
    return build.pad(x, before, after, 0, dtype) if any(before) or any(after) else x


RULE = Rule(
    name="axis-operators-written-out",
    severity="refused",
    operators=frozenset(OPS),
    find=_find,
    rewrite=Rewrite(apply=_apply, exact=False),
    hazard="MNN's converter does not read Hardmax, CumProd and CenterCropPad",
    remedy="write it with other operators, as prepare does if the sizes are fixed",
)
