"""An ONNX file as its graph and the bytes of its weights.

The weights are neither parsed nor copied when only the graph is read or changed.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from mnnprep.deps import require
from mnnprep.formats.onnx.fields import Graph, Model, Tensor
from mnnprep.model.files import FileRef
from mnnprep.wire.buffer import Buffer
from mnnprep.wire.protobuf import LENGTH, Field, delimited, encoded, fields, packed, text, verbatim

if TYPE_CHECKING:
    import numpy.typing as npt
    from onnx import ModelProto

NOTES = (Tensor.DOC_STRING, Tensor.METADATA_PROPS)
PLAIN = {
    1: "<f4",
    2: "u1",
    3: "i1",
    4: "<u2",
    5: "<i2",
    6: "<i4",
    7: "<i8",
    9: "?",
    10: "<f2",
    11: "<f8",
    12: "<u4",
    13: "<u8",
}  # DataType

LAST = 1 << 29  # protobuf's field numbers are below

Extent = tuple[int, int]
Part = bytes | memoryview


def apart(data: Buffer) -> tuple[ModelProto, list[Extent]]:
    """The ModelProto in *data* without its graph's initializers, and where the bytes of each are.

    Raises:
        WireError: the bytes are not the wire format.
    """
    initializers: list[Extent] = []

    def bare(number: int, kind: int, first: int, last: int) -> bytes:
        if (number, kind) != (Model.GRAPH, LENGTH):
            return verbatim(data, (number, kind, first, last))
        rest = []
        for field in fields(data, first, last):
            if field[:2] == (Graph.INITIALIZER, LENGTH):
                initializers.append(field[2:])
            else:
                rest.append(verbatim(data, field))
        return delimited(Model.GRAPH, b"".join(rest))

    model = require("onnx").ModelProto()
    model.ParseFromString(b"".join(bare(*field) for field in fields(data, 0, len(data))))
    return model, initializers


def array_at(data: Buffer, extent: Extent) -> npt.NDArray[np.generic] | None:
    """Return the numbers of the TensorProto at *extent* of *data*, not copied.

    None if they are not there as NumPy has them.
    """
    dims: list[int] = []
    dtype, raw = "", None
    for field in fields(data, *extent):
        number, _, first, last = field
        if number == Tensor.DIMS:
            dims += packed(data, field)
        elif number == Tensor.DATA_TYPE:
            dtype = PLAIN.get(first, "")
        elif number == Tensor.RAW_DATA:
            raw = first, last
    if not dtype or raw is None or raw[1] - raw[0] != math.prod(dims) * np.dtype(dtype).itemsize:
        return None
    return np.frombuffer(data, dtype, math.prod(dims), raw[0]).reshape(dims)


def without_notes(data: bytes, extent: Extent) -> list[Part]:
    """The TensorProto at *extent* of *data* without what is said about it, in parts."""
    found = list(fields(data, *extent))
    if any(field[0] in NOTES for field in found):
        return [verbatim(data, field) for field in found if field[0] not in NOTES]
    return [memoryview(data)[slice(*extent)]]


def filled(data: bytes, extent: Extent, array: npt.NDArray[np.generic]) -> list[Part]:
    """Return the TensorProto at *extent* of *data* with the shape and the numbers of *array*, in parts.

    The one in *data* holds no numbers.
    """
    tensor = require("onnx").TensorProto.FromString(data[slice(*extent)])
    del tensor.dims[:]
    tensor.dims.extend(array.shape)
    for name in ("raw_data", "doc_string", "metadata_props"):
        tensor.ClearField(name)
    return [
        tensor.SerializeToString(deterministic=True),
        *_field(Tensor.RAW_DATA, [array.reshape(-1).view(np.uint8).data]),
    ]


def name_of(data: Buffer, extent: Extent) -> str:
    """The name of the TensorProto at *extent* of *data*."""
    return next(
        (
            text(data, first, last)
            for number, _, first, last in fields(data, *extent)
            if number == Tensor.NAME
        ),
        "",
    )


def write(path: Path, model: ModelProto, initializers: Iterable[list[Part]]) -> FileRef:
    """Write *model*, whose graph has none, with these *initializers*, each in parts.

    The bytes are those of the whole serialized deterministically.
    """
    data = model.SerializeToString(deterministic=True)
    outer = list(fields(data, 0, len(data)))
    inner = [
        field
        for _, _, first, last in (f for f in outer if f[0] == Model.GRAPH)
        for field in fields(data, first, last)
    ]

    def chosen(found: Sequence[Field], numbers: range) -> bytes:
        return b"".join(verbatim(data, field) for field in found if field[0] in numbers)

    tensors = [part for tensor in initializers for part in _field(Graph.INITIALIZER, tensor)]
    graph = [
        chosen(inner, range(Graph.INITIALIZER)),
        *tensors,
        chosen(inner, range(Graph.INITIALIZER + 1, LAST)),
    ]
    state, size = hashlib.sha256(), 0
    with path.open("wb") as file:
        for part in [
            chosen(outer, range(Model.GRAPH)),
            *_field(Model.GRAPH, graph),
            chosen(outer, range(Model.GRAPH + 1, LAST)),
        ]:
            state.update(part)
            size += file.write(part)
    return FileRef(str(path), state.hexdigest(), size)


def _field(number: int, parts: Sequence[Part]) -> list[Part]:
    """Field *number* with *parts* as its payload, in parts."""
    return [encoded(number << 3 | LENGTH) + encoded(sum(map(len, parts))), *parts]
