"""The step that writes a part of an ONNX graph as a model of its own, to find what a converter fails on."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from mnnprep.deps import require
from mnnprep.formats.onnx import graph as onnx_graph
from mnnprep.formats.onnx.excerpt import empty_like, stated_types, write_piece
from mnnprep.formats.onnx.outline import taken
from mnnprep.formats.onnx.skeleton import skeleton
from mnnprep.model.messages import Cut, CutJob

if TYPE_CHECKING:
    from onnx import ModelProto, NodeProto


def cut(job: CutJob) -> Cut:
    """List the nodes of a model that its inputs reach, and write the part that some of them make.

    The part's inputs are what its nodes take from others, with the types and shapes that ONNX infers; its
    outputs what they give to others or to nobody.
    """
    model = skeleton(job.model)
    nodes = [_Node(proto) for proto in model.graph.node]
    initialized = {t.name for t in model.graph.initializer}
    reached = {i.name for i in model.graph.input} - initialized
    live: list[_Node] = []
    for node in nodes:
        if node.takes & reached:
            reached |= node.gives
            live.append(node)
    makers = {name: number for number, node in enumerate(live) for name in node.gives}
    needs = [sorted({makers[name] for name in node.takes if name in makers}) for node in live]
    labels = [onnx_graph.label(node.proto) for node in live]
    if not job.nodes:
        return Cut(file=None, labels=labels, needs=needs)
    part = _part(model, nodes, [live[i] for i in job.nodes], reached)
    files = write_piece(part, job.model, Path(job.directory), linked=False)
    return Cut(file=files[0], labels=labels, needs=needs)


class _Node:
    """A node with the names it takes (those that its bodies take from outside included) and gives."""

    def __init__(self, proto: NodeProto) -> None:
        self.proto = proto
        self.gives = {name for name in proto.output if name}
        self.takes = {name for name in taken(proto) if name}


def _part(model: ModelProto, nodes: list[_Node], chosen: list[_Node], reached: set[str]) -> ModelProto:
    """The model that *chosen* make; what no input has *reached* comes along."""
    kept = {id(node) for node in chosen}
    wanted = set().union(*(node.takes for node in chosen))
    for node in reversed(nodes):
        if node.gives & wanted and not node.gives & reached:
            kept.add(id(node))
            wanted |= node.takes
    part = [node for node in nodes if id(node) in kept]
    given = set().union(*(node.gives for node in part))
    used = {name for node in part for name in node.takes}
    outside = {name for node in nodes if id(node) not in kept for name in node.takes} | {
        o.name for o in model.graph.output
    }
    types = stated_types(model)
    result = empty_like(model)
    graph = result.graph
    graph.node.extend(node.proto for node in part)
    graph.initializer.extend(t for t in model.graph.initializer if t.name in wanted)
    inputs = sorted(used & reached - given)
    outputs = [
        name
        for node in chosen
        for name in node.proto.output
        if name and (name in outside or name not in used)
    ]
    for names, target in ((inputs, graph.input), (outputs, graph.output)):
        for name in names:
            target.add().CopyFrom(
                types[name] if name in types else require("onnx.helper").make_tensor_value_info(name, 1, None)
            )
    return result
