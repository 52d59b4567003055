"""DequantizeLinear.

Measured with MNN 3.6.1: with one scale per axis or block the shape is wrong, with 16-bit integers or a
computed scale the numbers are, an int8 weight of a MatMul is wrong too, and in several dimensions the first
two change places or the numbers are wrong.  A weight becomes the float32 numbers that it stands for (four
bytes where it had one); anything else is written out.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from mnnprep.rules.editor import Editor
from mnnprep.rules.quantization.scales import RANGES, real, shifted, spread, spreadable
from mnnprep.rules.reading import Array, Reading, tensor
from mnnprep.rules.rule import Place, Rewrite, Rule

READ = (*RANGES, "INT32")


def find(reading: Reading) -> Iterator[Place]:
    for node, _ in reading.nodes("DequantizeLinear"):
        dtype, detail = reading.dtype(node.inputs[0]), _form(node, reading)
        axis, block = node.attributes.get_int("axis", 1), node.attributes.get_int("block_size", 0)
        able = (
            dtype in READ
            and reading.dtype(node.inputs[1]) == "FLOAT"
            and spreadable(reading, node.inputs[0], node.inputs[1], axis, block)
        )
        if detail:
            yield Place(node=node, detail=detail, match=(axis, block), repairable=able)


def apply(editor: Editor, place: Place) -> bool:
    node = place.node
    axis, block = place.match
    held = [tensor(value) if value is not None else None for value in node.inputs]
    if all(array is not None or value is None for array, value in zip(held, node.inputs, strict=True)):
        arrays = [array.numpy() if array is not None else None for array in held]
        editor.replace(node, editor.constant(node, _numbers(arrays, axis, block)))
        return True
    dims = editor.reading.dims(node.inputs[0]) or ()
    zero = spread(editor, node, node.inputs[2], axis, block, dims) if len(node.inputs) > 2 else None
    scale = spread(editor, node, real(editor, node, node.inputs[1]), axis, block, dims)
    editor.replace(node, editor.add(node, "Mul", shifted(editor, node, node.inputs[0], zero), scale))
    return True


def _numbers(arrays: list[Any], axis: int, block: int) -> Array:
    """The float32 numbers that a constant input stands for."""
    values, scale, zero = [*arrays, None][:3]

    def along(array: Array) -> Array:
        if block:
            return np.repeat(array, block, axis)[tuple(slice(size) for size in values.shape)]
        if array.size == 1:
            return array.reshape(())
        return array.reshape([-1 if number == axis % values.ndim else 1 for number in range(values.ndim)])

    shift = 0 if zero is None else along(zero).astype(np.int64)
    result: Array = ((values.astype(np.int64) - shift).astype(np.float32) * along(scale)).astype(np.float32)
    return result


def _form(node: Any, reading: Reading) -> str:
    """What makes the node wrong in MNN; empty where it is right."""
    scale, dtype = tensor(node.inputs[1]), reading.dtype(node.inputs[0])
    if dtype not in ("INT8", "UINT8", "INT32", "") and not dtype.startswith("FLOAT"):
        return dtype.lower()
    if tensor(node.inputs[0]) is not None:
        return "of a weight"
    if scale is None and dtype in ("INT8", "UINT8"):
        return "a computed scale"
    if scale is not None and scale.size > 1:
        return "a scale per axis or block"
    return "in several dimensions" if dtype in RANGES and (reading.rank(node.inputs[0]) or 0) > 1 else ""


RULE = Rule(
    name="dequantize-linear",
    severity="wrong",
    operators=frozenset({"DequantizeLinear"}),
    find=find,
    rewrite=Rewrite(apply=apply, exact=True),
    hazard="MNN's DequantizeLinear is right for one constant scale of an 8-bit input only",
    remedy="leave quantization to MNN: export in float and prepare with --weight-bits 8",
)
