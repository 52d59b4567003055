"""An ONNX graph without its weights: read past them, and fetched one by one where they are needed.

A tensor whose data is large is left in the file: in the ModelProto read here it stands as external data whose
location is :data:`INLINE` and whose offset and length are those of the whole TensorProto in the file.

Format facts: protobuf.dev/programming-guides/encoding.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from mnnprep.deps import require
from mnnprep.formats.onnx.fields import Attribute, Entry, Function, Graph, Model, Node, Tensor
from mnnprep.formats.onnx.graph import with_data
from mnnprep.wire.buffer import Buffer, mapped
from mnnprep.wire.protobuf import LENGTH, VARINT, Field, delimited, encoded, fields, verbatim

if TYPE_CHECKING:
    from onnx import ModelProto, TensorProto

INLINE = "\0inline"  # no file has this name
KEPT = 1024  # bytes: smaller tensors (shapes, axes) are read with the graph

Nested = dict[type, dict[int, type]]
# The messages that may hold a tensor: field number -> message
NESTED: Nested = {
    Model: {Model.GRAPH: Graph, Model.FUNCTIONS: Function},
    Graph: {Graph.NODE: Node, Graph.INITIALIZER: Tensor},
    Node: {Node.ATTRIBUTE: Attribute},
    Function: {Function.NODE: Node},
    Attribute: {
        Attribute.TENSOR: Tensor,
        Attribute.GRAPH: Graph,
        Attribute.TENSORS: Tensor,
        Attribute.GRAPHS: Graph,
    },
    Tensor: {},
}
INITIALIZERS: Nested = {
    Model: {Model.GRAPH: Graph},
    Graph: {Graph.INITIALIZER: Tensor},
    Tensor: {},
}


def skeleton(path: str | Path, *, whole_nodes: bool = False) -> ModelProto:
    """The ModelProto at *path* without its large tensors' data; only the pages of the rest are read.

    With *whole_nodes*, only initializers of the main graph lose theirs: nodes are as the file has them.
    """
    model: ModelProto = require("onnx").ModelProto()
    with mapped(Path(path)) as data:
        nested = INITIALIZERS if whole_nodes else NESTED
        model.ParseFromString(_stripped(data, 0, len(data), Model, nested))
    return model


def fetch(tensor: TensorProto, path: str | Path) -> TensorProto:
    """A copy of *tensor*, of a skeleton of the model at *path*, with its data in it."""
    proto = type(tensor)()
    entries = {e.key: e.value for e in tensor.external_data}
    if entries.get("location") != INLINE:
        proto.CopyFrom(tensor)
        return with_data(proto, Path(path).parent)
    with open(path, "rb") as file:
        file.seek(int(entries["offset"]))
        proto.ParseFromString(file.read(int(entries["length"])))
    return proto


def is_inline(tensor: TensorProto) -> bool:
    """Whether *tensor*, of a skeleton, was left in the model's own file."""
    return any(e.key == "location" and e.value == INLINE for e in tensor.external_data)


def _stripped(data: Buffer, start: int, end: int, kind: type, nested: Nested) -> bytes:
    """The message in ``data[start:end]`` with its large tensors' data taken out."""
    found = list(fields(data, start, end))
    if kind is Tensor and _large(found):
        return _placeholder(data, found, start, end)
    out = []
    for field in found:
        number, wire, first, last = field
        inner = nested[kind].get(number) if wire == LENGTH else None
        if inner is None:
            out.append(verbatim(data, field))
        else:
            out.append(delimited(number, _stripped(data, first, last, inner, nested)))
    return b"".join(out)


def _large(found: list[Field]) -> bool:
    sizes = [
        last - first
        for number, wire, first, last in found
        if number in Tensor.DATA and wire == LENGTH and number != Tensor.STRING_DATA
    ]
    return sum(sizes) > KEPT


def _placeholder(data: Buffer, found: list[Field], start: int, end: int) -> bytes:
    kept = [verbatim(data, field) for field in found if field[0] not in Tensor.DATA]
    entries = {"location": INLINE, "offset": str(start), "length": str(end - start)}
    kept += [
        delimited(Tensor.EXTERNAL_DATA, delimited(Entry.KEY, k.encode()) + delimited(Entry.VALUE, v.encode()))
        for k, v in entries.items()
    ]
    return b"".join([*kept, encoded(Tensor.DATA_LOCATION << 3 | VARINT), encoded(Tensor.EXTERNAL)])
