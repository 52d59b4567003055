"""An ONNX file as its graph and the bytes of its weights, which are neither parsed nor copied when only the graph is read or changed.

Field numbers: onnx/onnx.proto (ModelProto.graph, GraphProto.initializer, TensorProto.doc_string and metadata_props).
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from mnnprep.core.files import FileRef
from mnnprep.deps import require
from mnnprep.formats.onnx.wire import LENGTH, Buffer, Field, encoded, fields, mapped, verbatim

GRAPH = 7  # in a ModelProto
INITIALIZER = 5  # in a GraphProto
NOTES = (12, 16)  # in a TensorProto: doc_string, metadata_props
SMALL = 1024  # bytes

LAST = 1 << 29  # protobuf's field numbers are below

Extent = tuple[int, int]
Part = bytes | memoryview


def apart(data: Buffer) -> tuple[Any, list[Extent]]:
    """The ModelProto in *data* without its graph's initializers, and where the bytes of each are. Raises WireError."""
    initializers: list[Extent] = []

    def bare(number: int, kind: int, first: int, last: int) -> bytes:
        if (number, kind) != (GRAPH, LENGTH):
            return verbatim(data, (number, kind, first, last))
        rest = []
        for field in fields(data, first, last):
            if field[:2] == (INITIALIZER, LENGTH):
                initializers.append(field[2:])
            else:
                rest.append(verbatim(data, field))
        return b"".join(_field(GRAPH, rest))

    model = require("onnx").ModelProto()
    model.ParseFromString(b"".join(bare(*field) for field in fields(data, 0, len(data))))
    return model, initializers


def load_nodes(path: str | Path) -> Any:
    """The ModelProto at *path* without the initializers that take more than a kibibyte."""
    with mapped(Path(path)) as data:
        model, initializers = apart(data)
        for first, last in initializers:
            if last - first <= SMALL:
                model.graph.initializer.add().ParseFromString(data[first:last])
    return model


def without_notes(data: bytes, extent: Extent) -> Part:
    """The TensorProto at *extent* of *data* without what is said about it."""
    found = list(fields(data, *extent))
    if any(field[0] in NOTES for field in found):
        return b"".join(verbatim(data, field) for field in found if field[0] not in NOTES)
    return memoryview(data)[slice(*extent)]


def write(path: Path, model: Any, initializers: Iterable[Part]) -> FileRef:
    """Write *model*, whose graph has none, with these *initializers*: the bytes that it would have as a whole, serialized deterministically."""
    data = model.SerializeToString(deterministic=True)
    outer = list(fields(data, 0, len(data)))
    inner = [field for _, _, first, last in (f for f in outer if f[0] == GRAPH) for field in fields(data, first, last)]

    def chosen(found: Sequence[Field], numbers: range) -> bytes:
        return b"".join(verbatim(data, field) for field in found if field[0] in numbers)

    tensors = [part for tensor in initializers for part in _field(INITIALIZER, [tensor])]
    graph = [chosen(inner, range(INITIALIZER)), *tensors, chosen(inner, range(INITIALIZER + 1, LAST))]
    state, size = hashlib.sha256(), 0
    with path.open("wb") as file:
        for part in [chosen(outer, range(GRAPH)), *_field(GRAPH, graph), chosen(outer, range(GRAPH + 1, LAST))]:
            state.update(part)
            size += file.write(part)
    return FileRef(str(path), state.hexdigest(), size)


def _field(number: int, parts: Sequence[Part]) -> list[Part]:
    """Field *number* with *parts* as its payload, in parts."""
    return [encoded(number << 3 | LENGTH) + encoded(sum(map(len, parts))), *parts]
