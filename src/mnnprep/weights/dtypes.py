"""Element types: their sizes, and the names that safetensors, torch and NumPy give them.

Format facts: the codes of safetensors (github.com/huggingface/safetensors, ``Dtype``), torch's storage
classes (``torch.storage._dtype_to_storage_type_map``).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np

SAFETENSORS = {
    "F64": "float64",
    "F32": "float32",
    "F16": "float16",
    "BF16": "bfloat16",
    "I64": "int64",
    "I32": "int32",
    "I16": "int16",
    "I8": "int8",
    "U64": "uint64",
    "U32": "uint32",
    "U16": "uint16",
    "U8": "uint8",
    "BOOL": "bool",
    "C64": "complex64",
    "F8_E4M3": "float8_e4m3fn",
    "F8_E5M2": "float8_e5m2",
    "F8_E4M3FNUZ": "float8_e4m3fnuz",
    "F8_E5M2FNUZ": "float8_e5m2fnuz",
    "F8_E8M0": "float8_e8m0fnu",
}
CODES = {name: code for code, name in SAFETENSORS.items()}

PACKED = {
    "F4": "float4_e2m1fn",
    "F6_E2M3": "float6_e2m3fn",
    "F6_E3M2": "float6_e3m2fn",
}  # of less than a byte: described, not read

STORAGES = {
    "FloatStorage": "float32",
    "DoubleStorage": "float64",
    "HalfStorage": "float16",
    "BFloat16Storage": "bfloat16",
    "LongStorage": "int64",
    "IntStorage": "int32",
    "ShortStorage": "int16",
    "CharStorage": "int8",
    "ByteStorage": "uint8",
    "BoolStorage": "bool",
    "ComplexFloatStorage": "complex64",
    "ComplexDoubleStorage": "complex128",
    "QInt8Storage": "int8",
    "QUInt8Storage": "uint8",
    "QInt32Storage": "int32",
}

_BITS = {
    **dict.fromkeys(("float64", "int64", "uint64", "complex64"), 64),
    **dict.fromkeys(("float32", "int32", "uint32"), 32),
    **dict.fromkeys(("float16", "bfloat16", "int16", "uint16"), 16),
    "complex128": 128,
    **dict.fromkeys(
        (
            "int8",
            "uint8",
            "bool",
            "float8_e4m3fn",
            "float8_e4m3fnuz",
            "float8_e5m2",
            "float8_e5m2fnuz",
            "float8_e8m0fnu",
        ),
        8,
    ),
}
BITS = _BITS | {
    "complex32": 32,
    "int4": 4,
    "int2": 2,
    "uint4": 4,
    "uint2": 2,
    "float4_e2m1fn": 4,
    "float6_e2m3fn": 6,
    "float6_e3m2fn": 6,
}

FLOATING = frozenset(name for name in _BITS if "float" in name)
TARGETS = ("float32", "float16", "bfloat16")  # what --dtype may ask for


def known(dtype: str) -> bool:
    """Whether the dtype is one that mnnprep reads."""
    return dtype in _BITS


def bits_of(dtype: str) -> int:
    """The bits of one element."""
    return _BITS[dtype]


def byte_size(dtype: str, elements: int) -> int:
    """Return the bytes that so many elements of *dtype* take."""
    return _BITS[dtype] * elements // 8


def numpy_dtype(dtype: str) -> np.dtype[Any]:
    """NumPy's dtype; ml_dtypes is imported for the types that NumPy lacks."""
    import numpy as np

    if dtype == "bfloat16" or dtype.startswith("float8"):
        import ml_dtypes

        found: np.dtype[Any] = np.dtype(getattr(ml_dtypes, dtype))
        return found
    return np.dtype(dtype)


# NumPy's limit, the highest of all: the product of thousands of sizes, as a damaged file may state them, has
# no end
MOST_DIMENSIONS = 64
