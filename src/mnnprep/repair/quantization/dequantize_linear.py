"""DequantizeLinear.

Measured with MNN 3.6.1: with one scale per axis or block the shape is wrong, with 16-bit integers or a
computed scale the numbers are, an int8 weight of a MatMul is wrong too, and in several dimensions the first
two change places or the numbers are wrong.  A weight becomes the float32 numbers that it stands for (four
bytes where it had one); anything else is written out.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np

from mnnprep.repair.rule import Match, Rewrite, Rule
from mnnprep.repair.support.building import Builder, fed
from mnnprep.repair.support.editor import Editor
from mnnprep.repair.support.reading import Array, ModelView, tensor
from mnnprep.repair.support.scales import RANGES, Blocks, real, shifted, spread, spreadable, zero_point

if TYPE_CHECKING:
    import onnx_ir as ir

READ = (*RANGES, "INT32")


def _find(view: ModelView) -> Iterator[Match[Blocks]]:
    for node, opset in view.nodes("DequantizeLinear"):
        dtype, detail = view.dtype(node.inputs[0]), _form(node, view)
        axis, block = node.attributes.get_int("axis", 1), node.attributes.get_int("block_size", 0)
        able = (
            dtype in READ
            and view.dtype(node.inputs[1]) == "FLOAT"
            and spreadable(view, node.inputs[0], node.inputs[1], axis, block)
        )
        if detail:
            yield Match(at=node, detail=detail, opset=opset, found=Blocks(axis, block), repairable=able)


def _apply(editor: Editor, match: Match[Blocks]) -> bool:
    node = match.node
    axis, block = match.plan
    build = Builder(editor, node, match.opset)
    held = [tensor(value) for value in node.inputs]
    if [array is None for array in held] == [value is None for value in node.inputs]:
        values, scale, *zero = [array.numpy() for array in held if array is not None]
        build.replace_only(editor.constant(node, _numbers(values, scale, zero, axis, block)))
        return True
    dims = editor.view.dims(node.inputs[0]) or ()
    point = zero_point(build, axis, block, dims)
    factors = spread(build, real(build, fed(node, 1)), axis, block, dims)
    build.replace_only(build.op("Mul", shifted(build, fed(node, 0), point), factors))
    return True


def _numbers(values: Array, scale: Array, zero: list[Array], axis: int, block: int) -> Array:
    """The float32 numbers that a constant input stands for."""

    def along(array: Array) -> Array:
        if block:
            whole: Array = np.repeat(array, block, axis)
            return whole[tuple(slice(size) for size in values.shape)]
        if array.size == 1:
            return array.reshape(())
        shape = [-1 if number == axis % values.ndim else 1 for number in range(values.ndim)]
        return array.reshape(shape)

    shift = along(zero[0]).astype(np.int64) if zero else 0
    result: Array = ((values.astype(np.int64) - shift).astype(np.float32) * along(scale)).astype(np.float32)
    return result


def _form(node: ir.Node, view: ModelView) -> str:
    """Say what makes the node wrong in MNN; empty if it is right."""
    scale, dtype = tensor(node.inputs[1]), view.dtype(node.inputs[0])
    if dtype not in ("INT8", "UINT8", "INT32", "") and not dtype.startswith("FLOAT"):
        return dtype.lower()
    if tensor(node.inputs[0]) is not None:
        return "of a weight"
    if scale is None and dtype in ("INT8", "UINT8"):
        return "a computed scale"
    if scale is not None and scale.size > 1:
        return "a scale per axis or block"
    return "in several dimensions" if dtype in RANGES and (view.rank(node.inputs[0]) or 0) > 1 else ""


RULE = Rule(
    name="dequantize-linear",
    severity="wrong",
    operators=frozenset({"DequantizeLinear"}),
    find=_find,
    rewrite=Rewrite(apply=_apply, exact=True),
    hazard="MNN's DequantizeLinear is right for one constant scale of an 8-bit input only",
    remedy="leave quantization to MNN: export in float and prepare with --weight-bits 8",
)
