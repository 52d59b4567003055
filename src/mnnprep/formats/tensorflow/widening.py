"""The step that searches inputs on which the values inside a frozen graph go further than before."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

from mnnprep.deps import require
from mnnprep.formats.tensorflow import graphs
from mnnprep.formats.tensorflow.graph_files import open_session, read_artifact
from mnnprep.formats.tensorflow.net import SHAPE_ONLY, session_call
from mnnprep.model.running import case_inputs
from mnnprep.model.searching import Searched, SearchJob
from mnnprep.reference.widening import ELEMENT, MOST_VALUES, Run, search
from mnnprep.workers.server import doing

if TYPE_CHECKING:
    from mnnprep.formats.tensorflow.types import Graph, GraphDef

# Operators that hand on, add or scale: what they take shows in what comes after.
PLAIN = SHAPE_ONLY | {
    "Add", "AddN", "AddV2", "AvgPool", "BiasAdd", "ConcatV2", "Const", "Conv2D", "DepthwiseConv2dNative",
    "ExpandDims", "FusedBatchNorm", "FusedBatchNormV3", "Identity", "MatMul", "Mean", "Pack", "Pad", "PadV2",
    "Reshape", "Slice", "Split", "Squeeze", "StridedSlice", "Sub", "Sum", "Tile", "Transpose",
}  # fmt: skip
COMPARING = frozenset({"Equal", "Greater", "GreaterEqual", "Less", "LessEqual"})
FRAMES = frozenset({"Enter", "Switch", "If", "StatelessIf", "While", "StatelessWhile"})
CONVOLUTIONS = frozenset({"Conv2D", "DepthwiseConv2dNative", "Conv2DBackpropInput"})


def widen(job: SearchJob) -> Searched:
    """Search inputs for a frozen graph; see :func:`mnnprep.reference.widening.search`.

    Inside loops and branches no value can be watched: with them the proposals are all there is.

    Raises:
        RefusedError: TensorFlow can't load the graph.
    """
    doing("searching inputs that take the graph's values further")
    graph = read_artifact(job.model)
    shapes = {name: array.shape for name, array in case_inputs(job.cases[0].file.path).items()}
    made = _at(graph, shapes)
    outputs = [spec.name for spec in job.signature.outputs]
    watched = _watched(graph, made, outputs)
    inputs = [spec.name for spec in job.signature.inputs]

    def watch() -> Run | None:
        if any(node.op in FRAMES for node in graph.node):
            return None
        return session_call(open_session(graph, trust=False, optimize=False), inputs, watched)

    return search(job, _work(graph, made), constants_of(graph), watch)


def _at(graph: GraphDef, shapes: dict[str, tuple[int, ...]]) -> Graph:
    """The graph as TensorFlow imports it with inputs of these *shapes*, so that it infers all others."""
    v1 = require("tensorflow").compat.v1
    sized = type(graph)()
    sized.CopyFrom(graph)
    for node in sized.node:
        if node.op in graphs.INPUT_OPS and node.name in shapes:
            shape = node.attr["shape"].shape
            shape.Clear()
            for size in shapes[node.name]:
                shape.dim.add(size=size)
    made = v1.Graph()
    with made.as_default():
        v1.import_graph_def(sized, name="")
    return made


def _watched(graph: GraphDef, made: Graph, outputs: list[str]) -> list[str]:
    """The nodes that an input reaches and a nonlinear operator takes, and the outputs."""
    reached = {node.name for node in graph.node if node.op in graphs.INPUT_OPS}
    fed = set(reached)
    taken: list[str] = []
    for node in graphs.in_order(graph):
        data = [graphs.producer(i) for i in node.input if not i.startswith("^")]
        if node.op in graphs.INPUT_OPS or node.op in SHAPE_ONLY or not reached & set(data):
            continue
        reached.add(node.name)
        if node.op not in PLAIN:
            taken += [name for name in data if name in reached - fed]
        if node.op in COMPARING:
            taken.append(node.name)
    kinds = {op.name: op.outputs[0].dtype for op in made.get_operations() if op.outputs}
    watchable = {name for name, kind in kinds.items() if kind.is_floating or kind.is_bool}
    return [name for name in dict.fromkeys([*taken, *outputs]) if name in watchable][:MOST_VALUES]


def constants_of(graph: GraphDef) -> tuple[float, ...]:
    """The floating constants of one number, each once."""
    tensors = require("tensorflow")
    found = set()
    for node in graph.node:
        if node.op == "Const" and not any(d.size > 1 for d in node.attr["value"].tensor.tensor_shape.dim):
            value = tensors.make_ndarray(node.attr["value"].tensor)
            if value.dtype.kind == "f" and value.size == 1 and np.isfinite(value).all():
                found.add(float(value.reshape(-1)[0]))
    return tuple(sorted(found))


def _work(graph: GraphDef, made: Graph) -> int:
    """The work of one run, in multiplications."""
    total = 1
    for node in graph.node:
        operation = made.get_operation_by_name(node.name)
        if node.op == "Const" or not operation.outputs:
            continue
        known = [tensor.shape for tensor in operation.outputs if tensor.shape.rank is not None]
        outputs = sum(_elements(shape.as_list()) for shape in known)
        total += outputs * ELEMENT
        if len(operation.inputs) > 1 and operation.inputs[1].shape.rank is not None:
            weight = operation.inputs[1].shape.as_list()
            if node.op in CONVOLUTIONS:
                total += outputs * _elements(weight[:3])
            elif node.op == "MatMul":
                total += outputs * _elements(weight[:1])
    return total


def _elements(shape: list[int | None]) -> int:
    return math.prod(size or 1 for size in shape)
