"""Quantized numbers as floats: what the quantization rules are made of.

``real = (quantized - zero_point) * scale``, and back ``saturate(round_half_even(real / scale) +
zero_point)``, as ONNX's QuantizeLinear and DequantizeLinear say.  Integers of up to 16 bits and their
products are exact in float32 up to 2^24.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from mnnprep.repair.support.building import Builder, given
from mnnprep.repair.support.reading import Dims, ModelView

if TYPE_CHECKING:
    import onnx_ir as ir

    from mnnprep.repair.support.reading import Operand

RANGES = {"UINT8": (0, 255), "INT8": (-128, 127), "UINT16": (0, 65535), "INT16": (-32768, 32767)}


class Blocks(NamedTuple):
    """The extent of a scale: an index of ``axis``, or a ``block`` of so many (0: none)."""

    axis: int
    block: int


def real(build: Builder, value: ir.Value) -> ir.Value:
    """*value*, of integers or any float, in float32."""
    return value if build.editor.view.dtype(value) == "FLOAT" else build.cast(value, "FLOAT")


def shifted(build: Builder, value: ir.Value, zero: Operand) -> ir.Value:
    """``value - zero`` in float32; *zero* may be None."""
    as_float = real(build, value)
    return build.op("Sub", as_float, real(build, zero)) if zero is not None else as_float


def quantized(build: Builder, value: ir.Value, zero: Operand, dtype: str) -> ir.Value:
    """Return *value*, already divided by its scale, as integers of *dtype* (a name in RANGES).

    It goes by way of int32, from which MNN casts rightly.
    """
    low, high = (build.constant(np.array(number, np.float32)) for number in RANGES[dtype])
    value = build.op("Round", value)
    if zero is not None:
        value = build.op("Add", value, real(build, zero))
    value = build.op("Min", build.op("Max", value, low), high)
    return build.cast(build.cast(value, "INT32"), dtype)


def spread(build: Builder, value: ir.Value, axis: int, block: int, dims: Dims) -> ir.Value:
    """Spread a scale or zero point so that it broadcasts against a tensor of *dims*.

    It is one number, one for each index of *axis*, or one a block of it.
    """
    sizes = build.editor.view.dims(value)
    if not sizes or (len(sizes) == 1 and sizes[0] == 1 and not block):
        return value
    whole = dims[axis]
    if block and isinstance(whole, int):
        return build.op("Gather", value, build.ints(*(index // block for index in range(whole))), axis=axis)
    shape = [1] * len(dims)
    shape[axis] = -1
    return build.reshape(value, *shape)


def zero_point(build: Builder, axis: int, block: int, dims: Dims) -> Operand:
    """The zero point of the node, :func:`spread`; None if it is left out."""
    zero = given(build.node, 2)
    return None if zero is None else spread(build, zero, axis, block, dims)


def spreadable(view: ModelView, value: Operand, scale: Operand, axis: int, block: int) -> bool:
    """Whether :func:`spread` can tell the forms of *scale* apart."""
    dims, sizes = view.dims(value), view.dims(scale)
    if sizes is None:
        return False
    if not sizes or (len(sizes) == 1 and sizes[0] == 1 and not block):
        return True
    return dims is not None and (not block or isinstance(dims[axis], int))
