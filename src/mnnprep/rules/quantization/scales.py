"""Quantized numbers as floats: what the quantization rules are made of.

``real = (quantized - zero_point) * scale``, and back ``saturate(round_half_even(real / scale) +
zero_point)``, as ONNX's QuantizeLinear and DequantizeLinear say.  Integers of up to 16 bits and their
products are exact in float32 up to 2^24.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from mnnprep.deps import require
from mnnprep.rules.editor import Editor
from mnnprep.rules.forms import integers
from mnnprep.rules.reading import Reading

RANGES = {"UINT8": (0, 255), "INT8": (-128, 127), "UINT16": (0, 65535), "INT16": (-32768, 32767)}
ROUND_IS_KNOWN = 11


def real(editor: Editor, before: Any, value: Any) -> Any:
    """*value*, of integers or any float, in float32."""
    if editor.reading.dtype(value) == "FLOAT":
        return value
    return editor.add(before, "Cast", value, to=int(require("onnx_ir").DataType.FLOAT))


def shifted(editor: Editor, before: Any, value: Any, zero: Any) -> Any:
    """``value - zero`` in float32; *zero* may be None."""
    as_float = real(editor, before, value)
    return editor.add(before, "Sub", as_float, real(editor, before, zero)) if zero is not None else as_float


def quantized(editor: Editor, before: Any, value: Any, zero: Any, dtype: str) -> Any:
    """*value*, already divided by its scale, as integers of *dtype* (a name in RANGES), by way of int32, from
    which MNN casts rightly.
    """
    types = require("onnx_ir").DataType
    low, high = (editor.constant(before, np.array(number, np.float32)) for number in RANGES[dtype])
    value = editor.add(before, "Round", value)
    if zero is not None:
        value = editor.add(before, "Add", value, real(editor, before, zero))
    value = editor.add(before, "Min", editor.add(before, "Max", value, low), high)
    return editor.add(
        before, "Cast", editor.add(before, "Cast", value, to=int(types.INT32)), to=int(types[dtype])
    )


def spread(editor: Editor, before: Any, value: Any, axis: int, block: int, dims: tuple[Any, ...]) -> Any:
    """A scale or zero point so that it broadcasts against a tensor of *dims*: one number, one for each index
    of *axis*, or one a block of it.
    """
    sizes = editor.reading.dims(value) if value is not None else None
    if value is None or not sizes or (len(sizes) == 1 and sizes[0] == 1 and not block):
        return value
    if block:
        places = [index // block for index in range(dims[axis])]
        return editor.add(before, "Gather", value, integers(editor, before, *places), axis=axis)
    shape = [1] * len(dims)
    shape[axis] = -1
    return editor.add(before, "Reshape", value, integers(editor, before, *shape))


def spreadable(reading: Reading, value: Any, scale: Any, axis: int, block: int) -> bool:
    """Whether :func:`spread` can tell the forms of *scale* apart."""
    dims, sizes = reading.dims(value), reading.dims(scale)
    if sizes is None:
        return False
    if not sizes or (len(sizes) == 1 and sizes[0] == 1 and not block):
        return True
    return dims is not None and (not block or isinstance(dims[axis], int))
