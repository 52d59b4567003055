"""Reading an ONNX graph: training leftovers, index ranges, outputs that no input value reaches, weights."""

from __future__ import annotations

import hashlib
import math
import mmap
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from mnnprep.deps import require
from mnnprep.evidence import catalog
from mnnprep.evidence.check import Check
from mnnprep.formats.onnx import splice
from mnnprep.model.files import Arrays
from mnnprep.model.signature import Range
from mnnprep.text import listed

if TYPE_CHECKING:
    from onnx import FunctionProto, GraphProto, ModelProto, NodeProto, TensorProto

Scalar = bool | int | float | complex | str | bytes
SETTING = 16  # integers that the axes, sizes, bounds or pads of an operator are at most
STANDARD_DOMAINS = ("", "ai.onnx")
# Operators whose first output depends on the shape of their input alone.
SHAPE_ONLY = frozenset({"Shape", "Size"})
# Index-preserving steps between a graph input and the Gather that looks it up.
INDEX_PRESERVING = frozenset(
    {"Cast", "Identity", "Reshape", "Squeeze", "Unsqueeze", "Flatten", "Transpose", "Slice", "Expand"}
)

# Operators that compute something else from opset 13 on, said in the same words: before, they flattened their
# input at the axis.
READ_BY_OPSET = frozenset({"Softmax", "LogSoftmax", "Hardmax"})


def load_graph(path: str | Path) -> ModelProto:
    """The ModelProto at *path* without its external data."""
    model: ModelProto = require("onnx").load(str(path), load_external_data=False)
    return model


def subgraphs(node: NodeProto) -> Iterator[GraphProto]:
    """The graphs among a node's attributes (the bodies of If, Loop and Scan)."""
    for attribute in node.attribute:
        if attribute.HasField("g"):
            yield attribute.g
        yield from attribute.graphs


def all_nodes(graph: GraphProto | FunctionProto) -> Iterator[NodeProto]:
    """Every node of a graph, the bodies of control flow included."""
    for node in graph.node:
        yield node
        for body in subgraphs(node):
            yield from all_nodes(body)


def label(node: NodeProto) -> str:
    """A node as an engineer looks for it: its operator and its name (or first output)."""
    return f"{node.op_type} {node.name or next(iter(node.output), '')}"


def opset_of(model: ModelProto) -> int:
    """The version of the default operator set, as the file says."""
    return next((entry.version for entry in model.opset_import if entry.domain in STANDARD_DOMAINS), 0)


def form(model: ModelProto) -> str:
    """Return a digest of what the nodes say, names of values and all.

    Equal for two exports of one source if the opset makes no difference.
    """
    state = hashlib.sha256()
    for node in [*model.graph.node, *(node for function in model.functions for node in function.node)]:
        state.update(node.SerializeToString(deterministic=True))
        if node.op_type in READ_BY_OPSET:
            state.update(b"13" if opset_of(model) >= 13 else b"1")
    return state.hexdigest()


def inference_mode(model: ModelProto) -> Check:
    """Whether nothing of training is left in the graph: a Dropout or BatchNormalization in training mode.

    Batch statistics of what follows from constants are the same at inference (weights that are standardized).
    """
    opset, fixed = opset_of(model), follow_constants(model.graph)
    constants = scalar_constants(model.graph)
    left = []
    nodes = [*all_nodes(model.graph), *(node for function in model.functions for node in function.node)]
    for node in nodes:
        if node.op_type == "Dropout" and opset >= 12:
            mode = constants.get(node.input[2]) if len(node.input) > 2 and node.input[2] else False
            ratio = constants.get(node.input[1]) if len(node.input) > 1 and node.input[1] else 0.5
            if mode is None or (bool(mode) and ratio != 0.0):
                left.append(
                    f"{label(node)} in training mode"
                    if mode is not None
                    else f"{label(node)}, whose training_mode is computed"
                )
        elif (node.op_type == "BatchNormalization" and node.input[0] not in fixed) and (
            any(a.name == "training_mode" and a.i == 1 for a in node.attribute)
            or (opset < 14 and len([o for o in node.output if o]) > 1)
        ):
            left.append(f"{label(node)} in training mode")
    if left:
        return catalog.INFERENCE_MODE.failed(
            f"training is left in the graph: {listed(left)}; export the model in eval mode",
            subject=left[0],
        )
    return catalog.INFERENCE_MODE.passed(numbers={"nodes": len(nodes)})


def follow_constants(graph: GraphProto) -> set[str]:
    """The values of the main graph that follow from its stored tensors alone."""
    fed = {value.name for value in graph.input}
    fixed = {tensor.name for tensor in graph.initializer if tensor.name not in fed}
    for node in graph.node:
        drawn = node.op_type.startswith("Random") or node.op_type in ("Bernoulli", "Multinomial")
        plain = node.domain in STANDARD_DOMAINS and not drawn and next(subgraphs(node), None) is None
        if plain and all(not name or name in fixed for name in node.input):
            fixed.update(node.output)
    return fixed


def scalar_constants(graph: GraphProto) -> dict[str, Scalar]:
    """The scalar initializers and Constant nodes of a graph and its bodies, as Python numbers."""
    numpy_helper = require("onnx.numpy_helper")
    values: dict[str, Scalar] = {}

    def note(name: str, tensor: TensorProto) -> None:
        if not tensor.external_data and all(d == 1 for d in tensor.dims):
            array = numpy_helper.to_array(tensor)
            if array.size == 1:
                values[name] = array.reshape(()).item()

    def visit(graph: GraphProto) -> None:
        for tensor in graph.initializer:
            note(tensor.name, tensor)
        for node in graph.node:
            if node.op_type == "Constant":
                for attribute in node.attribute:
                    if attribute.name == "value":
                        note(node.output[0], attribute.t)
            for body in subgraphs(node):
                visit(body)

    visit(graph)
    return values


def index_bounds(model: ModelProto) -> dict[str, Range]:
    """For every integer graph input that indexes a constant table through Gather: its valid range."""
    graph = model.graph
    tables = {t.name: tuple(t.dims) for t in graph.initializer}
    for node in graph.node:
        if node.op_type == "Constant":
            tables.update({node.output[0]: tuple(a.t.dims) for a in node.attribute if a.name == "value"})
    origin = {i.name: i.name for i in graph.input if i.name not in tables}
    bounds: dict[str, Range] = {}
    for node in graph.node:
        if node.op_type in INDEX_PRESERVING and node.input and node.input[0] in origin:
            origin[node.output[0]] = origin[node.input[0]]
        elif node.op_type == "Gather" and node.input[0] in tables and node.input[1] in origin:
            axis = next((a.i for a in node.attribute if a.name == "axis"), 0)
            size = tables[node.input[0]][axis]
            name = origin[node.input[1]]
            bounds[name] = (0.0, float(min(size - 1, bounds.get(name, (0, size - 1))[1])))
    return bounds


def insensitive_outputs(model: ModelProto) -> dict[str, str]:
    """The graph outputs that depend on no value of any graph input, only on shapes or on constants."""
    graph = model.graph
    initialized = {t.name for t in graph.initializer}
    reached = {i.name for i in graph.input if i.name not in initialized}

    def outer_names(node: NodeProto) -> set[str]:
        names = set(node.input)
        for body in subgraphs(node):
            for inner in all_nodes(body):
                names.update(inner.input)
        return names

    shaped: set[str] = set()
    for node in graph.node:
        names = outer_names(node)
        if names & reached and node.op_type not in SHAPE_ONLY:
            reached.update(o for o in node.output if o)
        elif names & (reached | shaped):
            shaped.update(o for o in node.output if o)
    reasons = {True: "depends on shapes alone", False: "is a constant"}
    return {o.name: reasons[o.name in shaped] for o in graph.output if o.name not in reached}


def with_data(tensor: TensorProto, directory: Path) -> TensorProto:
    """Return *tensor* with its data in it.

    onnx.load would refuse data files that are links, which they often are (docs/ExternalData.md).
    """
    onnx = require("onnx")
    if tensor.data_location == onnx.TensorProto.EXTERNAL:
        info = require("onnx.external_data_helper").ExternalDataInfo(tensor)
        with (directory / info.location).open("rb") as file:
            file.seek(info.offset or 0)
            tensor.raw_data = file.read(info.length or -1)
        tensor.data_location = onnx.TensorProto.DEFAULT
        del tensor.external_data[:]
    return tensor


def _is_setting(tensor: TensorProto) -> bool:
    types = require("onnx").TensorProto
    integers = tensor.data_type in (types.INT32, types.INT64, types.BOOL)
    return integers and len(tensor.dims) <= 1 and math.prod(tensor.dims) <= SETTING


def tensors_of(path: str | Path, *, settings: bool = True) -> Arrays:
    """Every initializer and Constant of the model at *path*, by name, external data included.

    Without *settings*, a Constant of a few integers is left out: it is the axes, sizes or bounds of an
    operator, which a repair writes in another way.

    A dtype NumPy does not have (bfloat16, float8, int4) is given as its raw storage.  What lies in the file
    as NumPy has it is not read before it is used, and stays there.
    """
    numpy_helper = require("onnx.numpy_helper")
    directory = Path(path).parent
    tensors: Arrays = {}
    with open(path, "rb") as file:
        data = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)  # closed when the last array is gone
    model, initializers = splice.apart(data)
    for extent in initializers:
        array = splice.array_at(data, extent)
        if array is None:
            model.graph.initializer.add().ParseFromString(data[slice(*extent)])
        else:
            tensors[splice.name_of(data, extent)] = array

    def visit(graph: GraphProto, prefix: str) -> None:
        for tensor in graph.initializer:
            tensors[prefix + tensor.name] = numpy_helper.to_array(with_data(tensor, directory))
        for node in graph.node:
            if node.op_type == "Constant":
                for attribute in node.attribute:
                    if attribute.name == "value" and (settings or not _is_setting(attribute.t)):
                        tensors[prefix + node.output[0]] = numpy_helper.to_array(
                            with_data(attribute.t, directory)
                        )
            for number, body in enumerate(subgraphs(node)):
                visit(body, f"{prefix}{node.name or node.output[0]}[{number}]/")

    visit(model.graph, "")
    return tensors
