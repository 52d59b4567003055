"""The steps that find nodes of a frozen graph, and that write a part of it as a graph of its own."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from mnnprep.deps import require
from mnnprep.formats.tensorflow import graphs
from mnnprep.formats.tensorflow.graph_files import read_artifact
from mnnprep.model.files import file_ref
from mnnprep.model.messages import Cut, CutJob, Located, LocateJob

if TYPE_CHECKING:
    from mnnprep.formats.tensorflow.types import GraphDef, NodeDef, Tensor

PART = "part.pb"


def locate(job: LocateJob) -> Located:
    """The nodes of the operators, those of functions included."""
    graph = read_artifact(job.model)
    places = [*graph.node, *(node for function in graph.library.function for node in function.node_def)]
    return Located(nodes=[f"{node.op} {node.name}" for node in places if node.op in job.operators])


def cut(job: CutJob) -> Cut:
    """List the nodes of a frozen graph that its inputs reach, and write the part that some of them make.

    What the part takes from other nodes becomes placeholders, with the types and shapes that TensorFlow
    infers.
    """
    graph = read_artifact(job.model)
    nodes = graphs.nodes_of(graph)
    reached = {node.name for node in graph.node if node.op in graphs.INPUT_OPS}
    live: list[NodeDef] = []
    for node in graphs.in_order(graph):
        if node.name not in reached and any(graphs.producer(i) in reached for i in node.input):
            reached.add(node.name)
            live.append(node)
    numbers = {node.name: number for number, node in enumerate(live)}
    needs = [
        sorted({numbers[p] for i in node.input if (p := graphs.producer(i)) in numbers}) for node in live
    ]
    labels = [f"{node.op} {node.name}" for node in live]
    if not job.nodes:
        return Cut(file=None, labels=labels, needs=needs)
    path = Path(job.directory) / PART
    path.write_bytes(
        _part(graph, nodes, [live[i] for i in job.nodes], reached).SerializeToString(deterministic=True)
    )
    return Cut(file=file_ref(path), labels=labels, needs=needs)


def _part(graph: GraphDef, nodes: dict[str, NodeDef], chosen: list[NodeDef], reached: set[str]) -> GraphDef:
    kept = {node.name for node in chosen}
    fed = {i: graphs.tensor(i) for node in chosen for i in node.input if graphs.producer(i) in reached - kept}
    constants = graphs.ancestors(
        graph, {graphs.producer(i) for node in chosen for i in node.input} - reached, control=False
    )
    part = type(graph)(versions=graph.versions, library=graph.library)
    names = {text: text if text in nodes else text.replace(":", "/port_") for text in fed}
    shapes = _shapes(graph, set(fed.values()))
    for text, tensor in fed.items():
        placeholder = part.node.add(name=names[text], op="Placeholder")
        placeholder.attr["dtype"].type = shapes[tensor].dtype.as_datatype_enum
        placeholder.attr["shape"].shape.CopyFrom(shapes[tensor].shape.as_proto())
    for node in graph.node:
        if node.name in kept | constants:
            copy = part.node.add()
            copy.CopyFrom(node)
            copy.input[:] = [names.get(i, i) for i in node.input]
    return part


def _shapes(graph: GraphDef, tensors: set[str]) -> dict[str, Tensor]:
    v1 = require("tensorflow").compat.v1
    made = v1.Graph()
    with made.as_default():
        v1.import_graph_def(graph, name="")
    return {name: made.get_tensor_by_name(name) for name in tensors}
