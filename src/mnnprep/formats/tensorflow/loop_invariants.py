"""Values that a Loop of tf2onnx carries from step to step unchanged.

A while loop of TensorFlow carries all that its body reads, the weights of a recurrent cell too; tf2onnx
declares each of them as a scalar in the body, so that onnxruntime refuses a Split of one.  A body may read
values outside it: those that never change are read there, with the shapes that they have.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from mnnprep.deps import require

if TYPE_CHECKING:
    from collections.abc import Iterator

    import onnx

CONTROL = 2  # the first inputs of a Loop, and of its body: the number of steps, and whether to go on


def read_outside(graph: onnx.GraphProto) -> int:
    """Let the Loops of *graph* and of its bodies read what never changes outside; how many values that is."""
    count = 0
    for node in list(graph.node):
        for body in _bodies(node):
            count += read_outside(body)
        if node.op_type == "Loop":
            count += _freed(graph, node, next(a.g for a in node.attribute if a.name == "body"))
    return count


def _bodies(node: onnx.NodeProto) -> Iterator[onnx.GraphProto]:
    for attribute in node.attribute:
        if attribute.HasField("g"):
            yield attribute.g
        yield from attribute.graphs


def _freed(graph: onnx.GraphProto, loop: onnx.NodeProto, body: onnx.GraphProto) -> int:
    """Take the values that *loop* carries unchanged out of what it carries; how many they were."""
    given = [value.name for value in body.output]
    count = 0
    for place in reversed(range(len(loop.input) - CONTROL)):
        inner, outer = body.input[CONTROL + place].name, loop.input[CONTROL + place]
        if body.output[1 + place].name != inner or given.count(inner) > 1:
            continue
        _rename(body, inner, outer)
        result = loop.output[place]
        del loop.input[CONTROL + place], loop.output[place]
        del body.input[CONTROL + place], body.output[1 + place]
        if result:
            at = next(number for number, node in enumerate(graph.node) if node is loop or node == loop)
            graph.node.insert(
                at, require("onnx.helper").make_node("Identity", [outer], [result], name=result)
            )
        count += 1
    return count


def _rename(graph: onnx.GraphProto, old: str, new: str) -> None:
    """Let every node of *graph* and of its bodies read *new* where it read *old*."""
    for node in graph.node:
        for index, name in enumerate(node.input):
            if name == old:
                node.input[index] = new
        for body in _bodies(node):
            _rename(body, old, new)
