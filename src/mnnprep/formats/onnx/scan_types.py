"""The types of values in an ONNX file, read without onnx.

Format facts: onnx/onnx.proto (ValueInfoProto, TypeProto, TensorShapeProto).
"""

from __future__ import annotations

from mnnprep.formats.onnx.fields import Dimension, Shape, TensorType, Type, ValueInfo
from mnnprep.formats.onnx.scan_tensors import DTYPES
from mnnprep.formats.tensor_info import TensorInfo
from mnnprep.wire.buffer import Buffer
from mnnprep.wire.protobuf import LENGTH, VARINT, WireError, fields, signed, text

MAX_NESTING = 33  # protobuf parsers stop at 100 nested messages; a graph in a graph is three
Sizes = tuple[int | str | None, ...]


def read_value(data: Buffer, start: int, end: int) -> TensorInfo:
    """A ValueInfoProto: name, type and shape of a graph's input or output."""
    name = dtype = ""
    shape: Sizes | None = None
    for number, kind, first, last in fields(data, start, end):
        if (number, kind) == (ValueInfo.NAME, LENGTH):
            name = text(data, first, last)
        elif (number, kind) == (ValueInfo.TYPE, LENGTH):
            dtype, shape = _type(data, first, last, 0)
    return TensorInfo(name, dtype, shape)


def _type(data: Buffer, start: int, end: int, depth: int) -> tuple[str, Sizes | None]:
    if depth > MAX_NESTING:
        raise WireError(start, f"types nested more than {MAX_NESTING} deep")
    for number, kind, first, last in fields(data, start, end):
        if kind != LENGTH:
            continue
        if number in (Type.TENSOR, Type.SPARSE_TENSOR):
            return _tensor_type(data, first, last, "sparse " if number == Type.SPARSE_TENSOR else "")
        if number in (Type.SEQUENCE, Type.OPTIONAL):
            wrapper = "sequence" if number == Type.SEQUENCE else "optional"
            for part, part_kind, part_first, part_last in fields(data, first, last):
                if (part, part_kind) == (Type.ELEMENT, LENGTH):
                    return f"{wrapper}({_type(data, part_first, part_last, depth + 1)[0]})", None
            return wrapper, None
        if number in (Type.MAP, Type.OPAQUE):
            return ("map" if number == Type.MAP else "opaque"), None
    return "", None


def _tensor_type(data: Buffer, start: int, end: int, prefix: str) -> tuple[str, Sizes | None]:
    dtype = ""
    shape: Sizes | None = None
    for number, kind, first, last in fields(data, start, end):
        if (number, kind) == (TensorType.ELEM_TYPE, VARINT):
            dtype = prefix + DTYPES.get(first, f"type {first}" if first else "")
        elif (number, kind) == (TensorType.SHAPE, LENGTH):
            shape = tuple(
                _dimension(data, f, e)
                for n, k, f, e in fields(data, first, last)
                if (n, k) == (Shape.DIM, LENGTH)
            )
    return dtype, shape


def _dimension(data: Buffer, start: int, end: int) -> int | str | None:
    size: int | str | None = None
    for number, kind, first, last in fields(data, start, end):
        if (number, kind) == (Dimension.VALUE, VARINT):
            size = (
                signed(first) if signed(first) >= 0 else None
            )  # -1 is what some exporters write for an open one
        elif (number, kind) == (Dimension.PARAM, LENGTH):
            size = text(data, first, last) or None
    return size
