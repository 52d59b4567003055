"""Name, dtype and shape of a tensor, as a file states them; nothing heavy is imported."""

from __future__ import annotations

import math

import msgspec


class TensorInfo(msgspec.Struct, frozen=True):
    """One tensor: an input, an output or a stored weight.

    ``dtype`` is NumPy's or ml_dtypes' name, empty where the file does not say.  A dimension is a size,
    a symbolic name, or None where it is open; ``shape`` is None where not even the rank is known.
    """

    name: str
    dtype: str = ""
    shape: tuple[int | str | None, ...] | None = None


MAX_ELEMENTS = 1 << 48  # no tensor is larger: beyond, a shape is damage

# Bits of one element.
DTYPE_BITS: dict[str, int] = {
    "float32": 32, "float64": 64, "float16": 16, "bfloat16": 16, "complex64": 64, "complex128": 128, "complex32": 32, "bool": 8,
    "int64": 64, "int32": 32, "int16": 16, "int8": 8, "int4": 4, "int2": 2,
    "uint64": 64, "uint32": 32, "uint16": 16, "uint8": 8, "uint4": 4, "uint2": 2,
    "float8_e4m3fn": 8, "float8_e4m3fnuz": 8, "float8_e5m2": 8, "float8_e5m2fnuz": 8, "float8_e8m0fnu": 8,
    "float4_e2m1fn": 4, "float6_e2m3fn": 6, "float6_e3m2fn": 6,
}  # fmt: skip


def element_count(shape: tuple[int, ...]) -> int:
    """The number of elements; 1 for a scalar."""
    return math.prod(shape)


def byte_count(dtype: str, elements: int) -> int | None:
    """The bytes that *elements* of *dtype* take when packed; None where an element has no fixed size."""
    bits = DTYPE_BITS.get(dtype)
    return None if bits is None else (bits * elements + 7) // 8
