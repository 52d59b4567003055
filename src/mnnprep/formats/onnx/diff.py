"""The differences of two exports of one source at other sizes: there a size was baked in."""

from __future__ import annotations

import re
from itertools import zip_longest
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mnnprep.deps import require
from mnnprep.formats.onnx import graph
from mnnprep.model.messages import Diff, DiffJob

if TYPE_CHECKING:
    from onnx import GraphProto, NodeProto, TensorProto

SMALL = 16  # elements of a constant that is shown
LIBRARIES = ("torch", "onnxscript", "mnnprep")
# A frame as torch writes it: `path(12): name` in a doc_string, `File "path", line 12, in name` in a stack
# trace.
FRAME = re.compile(r"(?P<path>[^\s\"]+\.py)(?:\((?P<number>\d+)\)|\", line (?P<line>\d+))")


def diff(job: DiffJob) -> Diff:
    """Return the nodes whose attributes or constants are not the same in both.

    The first that is another operator ends the list.
    """
    first, second = (graph.load_graph(path) for path in (job.first, job.second))
    constants = [_constants(model.graph) for model in (first, second)]
    nodes: list[str] = []
    pairs = zip_longest(*(list(graph.all_nodes(model.graph)) for model in (first, second)))
    for one, other in (
        (a, b)
        for a, b in pairs
        if a is None or b is None or a.op_type != "Constant" or b.op_type != "Constant"
    ):
        if one is None or other is None or one.op_type != other.op_type:
            nodes.append(_described(one or other, other, "the graph itself depends on the size from here on"))
            break
        change = _changed(one, other, constants)
        if change:
            nodes.append(_described(one, other, change))
    return Diff(nodes=nodes)


def _constants(graph_proto: GraphProto) -> dict[str, object]:
    """The small constants of a graph and its bodies as lists, the large ones as their shapes, by name."""
    helper = require("onnx.numpy_helper")
    found: dict[str, Any] = {}

    def note(name: str, tensor: TensorProto) -> None:
        size = 1
        for extent in tensor.dims:
            size *= extent
        found[name] = (
            helper.to_array(tensor).tolist()
            if size <= SMALL and not tensor.external_data
            else f"shape {list(tensor.dims)}"
        )

    def visit(graph_proto: GraphProto) -> None:
        for tensor in graph_proto.initializer:
            note(tensor.name, tensor)
        for node in graph_proto.node:
            for attribute in node.attribute:
                if node.op_type == "Constant" and attribute.name == "value":
                    note(node.output[0], attribute.t)
            for body in graph.subgraphs(node):
                visit(body)

    visit(graph_proto)
    return found


def _changed(one: NodeProto, other: NodeProto, constants: list[dict[str, object]]) -> str:
    """Return the differences of two nodes of the same operator, as ``[2, 64] became [3, 64]``.

    Empty when there are none.
    """
    for a, b in zip(one.input, other.input, strict=False):
        before, after = constants[0].get(a), constants[1].get(b)
        if before is not None and after is not None and before != after:
            return f"{before} became {after}"
    values = [
        {a.name: require("onnx").helper.get_attribute_value(a) for a in node.attribute if not a.HasField("g")}
        for node in (one, other)
    ]
    for name, before in values[0].items():
        after = values[1].get(name)
        if isinstance(before, (int, float, list)) and isinstance(after, type(before)) and before != after:
            return f"{name}={before} became {after}"
    return ""


def _described(node: NodeProto, placed: NodeProto | None, change: str) -> str:
    place = _place(placed) if placed is not None else ""
    return f"{graph.label(node)}: {change}" + (f" (at {place})" if place else "")


def _place(node: NodeProto) -> str:
    """The user's own line that made the node, as ``file.py:12``; empty when the exporter did not say."""
    texts = [
        node.doc_string,
        *(entry.value for entry in node.metadata_props if entry.key.endswith("stack_trace")),
    ]
    for text in filter(None, texts):
        frames = [(match["path"], match["number"] or match["line"]) for match in FRAME.finditer(text)]
        users = [(path, number) for path, number in frames if not set(Path(path).parts) & set(LIBRARIES)]
        if users:
            path, number = (
                users[0] if node.doc_string else users[-1]
            )  # innermost: first in a doc_string, last in a stack trace
            return f"{Path(path).name}:{number}"
    return ""
