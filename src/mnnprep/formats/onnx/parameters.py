"""How many parameters an ONNX model has, whatever holds them."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from mnnprep.deps import require
from mnnprep.formats.onnx import graph

if TYPE_CHECKING:
    from onnx import GraphProto, ModelProto, NodeProto

_STRUCTURE = (
    "INT32",
    "INT64",
    "UINT32",
    "UINT64",
    "BOOL",
    "STRING",
)  # shapes, indices, axes, biases' zero points, texts


def parameters(model: ModelProto) -> int:
    """Return the elements of the numbers in *model* that are weights.

    Weights are initializers, and Constant nodes of one dimension or more.

    Those of control flow's bodies and of local functions count once; 32- and 64-bit integers, which are
    shapes and indices, do not; of a sparse tensor the elements that it stands for do.
    """
    types = require("onnx").TensorProto
    structure = {getattr(types, name) for name in _STRUCTURE}
    return sum(math.prod(dims) for dtype, dims in _tensors(model) if dtype not in structure)


def _tensors(model: ModelProto) -> Iterator[tuple[int, list[int]]]:
    nodes: list[Any] = []
    for owner in _graphs(model.graph):
        yield from ((t.data_type, list(t.dims)) for t in owner.initializer)
        yield from ((t.values.data_type, list(t.dims)) for t in owner.sparse_initializer)
        nodes += owner.node
    for function in model.functions:
        nodes += graph.all_nodes(function)
    for node in nodes:
        if node.op_type == "Constant":
            yield from _constant(node)


def _graphs(owner: GraphProto) -> Iterator[GraphProto]:
    yield owner
    for node in owner.node:
        for body in graph.subgraphs(node):
            yield from _graphs(body)


def _constant(node: NodeProto) -> Iterator[tuple[int, list[int]]]:
    for attribute in node.attribute:
        if attribute.HasField("t") and attribute.t.dims:
            yield attribute.t.data_type, list(attribute.t.dims)
        elif attribute.HasField("sparse_tensor"):
            yield attribute.sparse_tensor.values.data_type, list(attribute.sparse_tensor.dims)
        elif attribute.floats:
            yield require("onnx").TensorProto.FLOAT, [len(attribute.floats)]
