"""The step that says how an ONNX graph hangs together, without its weights."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import TYPE_CHECKING

import msgspec
import numpy as np

from mnnprep.deps import require
from mnnprep.formats.onnx import graph, propagation
from mnnprep.formats.onnx.backend import RUNTIME
from mnnprep.formats.onnx.skeleton import skeleton
from mnnprep.model.reach import ReadPath
from mnnprep.model.running import case_inputs
from mnnprep.workers.server import doing
from mnnprep.workers.step import Step

if TYPE_CHECKING:
    from onnx import GraphProto, ModelProto, NodeProto


class OutlineJob(msgspec.Struct, frozen=True, kw_only=True):
    """Outline ``model``; sizes are those at the inputs of the case file ``case``."""

    model: ReadPath
    case: ReadPath


class NodeOutline(msgspec.Struct, frozen=True, kw_only=True):
    """A node of the main graph.

    ``inputs`` has what its bodies take from outside, too; ``bodies`` names its graph attributes.
    """

    label: str
    op: str
    inputs: list[str]
    outputs: list[str]
    bodies: list[str] = msgspec.field(default_factory=list)


class Outline(msgspec.Struct, frozen=True, kw_only=True):
    """``nodes`` are in topological order; ``sizes`` are bytes of values, for those whose shape is known."""

    nodes: list[NodeOutline]
    inputs: list[str]
    outputs: list[str]
    initializers: list[str]
    sizes: dict[str, int] = msgspec.field(default_factory=dict)


def outline(job: OutlineJob) -> Outline:
    """The nodes of the main graph, each with the values it takes and gives."""
    doing("reading the graph")
    model = skeleton(job.model)
    top = model.graph
    initializers = [t.name for t in top.initializer]
    nodes = [
        NodeOutline(
            label=graph.label(node),
            op=node.op_type,
            inputs=list(dict.fromkeys(n for n in taken(node) if n)),
            outputs=[o for o in node.output if o],
            bodies=[a.name for a in node.attribute if a.HasField("g")],
        )
        for node in top.node
    ]
    shapes = {name: array.shape for name, array in case_inputs(job.case).items()} if job.case else {}
    return Outline(
        nodes=nodes,
        inputs=[i.name for i in top.input if i.name not in set(initializers)],
        outputs=[o.name for o in top.output],
        initializers=initializers,
        sizes=sizes_at(model, shapes),
    )


def taken(node: NodeProto) -> Iterator[str]:
    """The values that a node takes, those that its bodies take from outside included."""
    yield from node.input
    for body in graph.subgraphs(node):
        yield from captured(body)


def captured(body: GraphProto) -> list[str]:
    """Return the values that a body takes from outside it, in order."""
    own = (
        {i.name for i in body.input}
        | {t.name for t in body.initializer}
        | {o for node in body.node for o in node.output}
    )
    names = [name for node in body.node for name in taken(node)] + [o.name for o in body.output]
    return list(dict.fromkeys(name for name in names if name and name not in own))


def inferred(model: ModelProto) -> ModelProto:
    """*model* with the shapes that ONNX infers, or as it is where the inference fails."""
    try:
        infer = require("onnx.shape_inference").infer_shapes
        found: ModelProto = infer(
            model, check_type=False, strict_mode=False, data_prop=_lists_stay_small(model)
        )
    except Exception:  # an operator that ONNX does not know, a contradiction in the file
        return model
    return found


def _lists_stay_small(model: ModelProto) -> bool:
    """Whether ONNX can follow the lists of sizes of *model* number by number."""
    nodes = list(graph.all_nodes(model.graph))
    constants = {t.name: math.prod(t.dims) for t in model.graph.initializer}
    constants |= {
        n.output[0]: math.prod(a.t.dims)
        for n in nodes
        if n.op_type == "Constant"
        for a in n.attribute
        if a.name == "value"
    }
    functions = {f.name: sum(n.op_type == "Concat" for n in f.node) for f in model.functions}
    return propagation.stays_small(((n.op_type, n.input, n.output) for n in nodes), constants, functions)


def sizes_at(model: ModelProto, shapes: dict[str, tuple[int, ...]]) -> dict[str, int]:
    """The bytes of every value whose shape follows from these input shapes. *model*'s inputs are changed."""
    helper = require("onnx.helper")
    for value in model.graph.input:
        if value.name in shapes:
            del value.type.tensor_type.shape.dim[:]
            for size in shapes[value.name]:
                value.type.tensor_type.shape.dim.add().dim_value = size
    del model.graph.value_info[:]  # stated for other sizes
    sizes = {}
    for value in inferred(model).graph.value_info:
        tensor = value.type.tensor_type
        dims = [d.dim_value for d in tensor.shape.dim]
        if tensor.HasField("shape") and all(d.HasField("dim_value") for d in tensor.shape.dim):
            try:
                width = np.dtype(helper.tensor_dtype_to_np_dtype(tensor.elem_type)).itemsize
            except KeyError:
                continue
            sizes[value.name] = math.prod(dims) * width
    return sizes


OUTLINE = Step.of(outline, RUNTIME)
