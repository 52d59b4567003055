"""Whether an ONNX graph is one.

No node waits for itself, and every node has the inputs, outputs and attributes of its operator.

The rules that look for hazards read operands by their place, as an operator's definition gives them
(onnx/defs, docs/Operators.md). A graph that passes here has them.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

from mnnprep.deps import require
from mnnprep.errors import RefusedError
from mnnprep.formats.onnx.graph import STANDARD_DOMAINS
from mnnprep.safety.damage import AGAIN
from mnnprep.text import listed

if TYPE_CHECKING:
    import onnx_ir as ir
    from onnx import ModelProto

SHOWN = 5  # places in one message


def require_sound(model: ir.Model, name: str) -> None:
    """Refuse the onnx-ir *model*, read from the file *name*, if a graph of it is not sound.

    Raises:
        RefusedError: naming the nodes.
    """
    problems: list[str] = []
    tops: list[ir.Graph | ir.Function] = [model.graph, *model.functions.values()]
    for top in tops:
        imports = top.opset_imports
        opset = next((imports[domain] for domain in STANDARD_DOMAINS if domain in imports), 0)
        for graph in _graphs(top):
            circle = _circle(graph)
            if circle:
                problems.append(
                    "the nodes form a cycle: " + listed([label(node) for node in circle], SHOWN, "; ")
                )
            problems += [
                f"the name {name!r} is not text"
                for node in graph
                for name in _names(node)
                if isinstance(name, bytes)
            ]
            problems += [f"{label(node)} {problem}" for node in graph for problem in _misfits(node, opset)]
    if problems:
        raise not_allowed(f"{name}: {listed(problems, SHOWN, '; ')}")


def require_names(model: ModelProto, name: str) -> None:
    """Refuse the *model*, read from the file *name*, if a name in its main graph is not valid UTF-8.

    onnxruntime and onnx hand such a name on as it is, and fail where they turn it into text.

    Raises:
        RefusedError: with the first of them.
    """
    graph = model.graph
    values = (*graph.input, *graph.output, *graph.initializer, *graph.node)
    names = itertools.chain((value.name for value in values), *((*n.input, *n.output) for n in graph.node))
    for found in names:
        if isinstance(found, bytes):
            raise not_allowed(f"{name}: the name {found!r} is no text")


def not_allowed(seen: str) -> RefusedError:
    """Return the refusal of a graph that ONNX does not allow, with the fault *seen*."""
    return RefusedError("the ONNX model is damaged: ONNX does not allow its graph", seen=seen, next=AGAIN)


def label(node: ir.Node) -> str:
    """A node as an engineer looks for it: its operator and its name (or first named output)."""
    name = node.name or next((value.name for value in node.outputs if value.name), "")
    return f"{node.op_type} {name}".strip()


def _bodies(node: ir.Node) -> Iterator[ir.Graph]:
    types = require("onnx_ir").AttributeType
    for attribute in node.attributes.values():
        if attribute.is_ref():
            continue
        if attribute.type == types.GRAPH:
            yield attribute.value
        elif attribute.type == types.GRAPHS:
            yield from attribute.value


def _graphs(top: ir.Graph | ir.Function) -> Iterator[ir.Graph | ir.Function]:
    """A graph and all graphs below it."""
    waiting: list[ir.Graph | ir.Function] = [top]
    while waiting:
        graph = waiting.pop()
        yield graph
        waiting += [body for node in graph for body in _bodies(node)]


def _names(node: ir.Node) -> Iterator[str | bytes | None]:
    """Every name in a node; protobuf gives one that is not UTF-8 as bytes."""
    yield from (node.op_type, node.domain, node.name, *node.attributes)
    yield from (value.name for value in (*node.inputs, *node.outputs) if value is not None)


def _reads(node: ir.Node) -> Iterator[ir.Value | None]:
    """The values that a node reads, those of the nodes in its bodies included."""
    yield from node.inputs
    for body in _bodies(node):
        for graph in _graphs(body):
            yield from graph.outputs
            for inner in graph:
                yield from inner.inputs


def _circle(graph: ir.Graph | ir.Function) -> list[ir.Node]:
    """Return the nodes of *graph* that can't be put in order, in the order of the file.

    Those that only read of them are included.
    """
    nodes = list(graph)
    place = {id(node): index for index, node in enumerate(nodes)}
    readers: list[list[int]] = [[] for _ in nodes]
    missing = [0] * len(nodes)
    for index, node in enumerate(nodes):
        makers = {id(value.producer()) for value in _reads(node) if value is not None}
        for maker in (place[made] for made in makers if made in place):
            readers[maker].append(index)
            missing[index] += 1
    ready = [index for index, count in enumerate(missing) if not count]
    while ready:
        for reader in readers[ready.pop()]:
            missing[reader] -= 1
            if not missing[reader]:
                ready.append(reader)
    return [node for node, count in zip(nodes, missing, strict=True) if count]


def _misfits(node: ir.Node, opset: int) -> Iterable[str]:
    """Say how a node of ONNX's own domain differs from its operator's definition.

    None for an operator that ONNX does not know.
    """
    if node.domain not in STANDARD_DOMAINS:
        return
    defs = require("onnx.defs")
    try:
        schema = defs.get_schema(node.op_type, max(opset, 1), "")
    except (defs.SchemaError, TypeError):
        return
    for what, given, least, most in (
        ("inputs", node.inputs, schema.min_input, schema.max_input),
        ("outputs", node.outputs, schema.min_output, schema.max_output),
    ):
        if not least <= len(given) <= most:
            yield (
                f"has {len(given)} {what}, but the operator has {least} to {most}"
                if least != most
                else f"has {len(given)} {what}, not {least}"
            )
    for formal, value in zip(schema.inputs, node.inputs, strict=False):
        if value is None and formal.option == defs.OpSchema.FormalParameterOption.Single:
            yield f"lacks its input {formal.name}"
    for formal in schema.attributes.values():
        attribute = node.attributes.get(formal.name)
        if attribute is None:
            if formal.required:
                yield f"lacks its attribute {formal.name}"
        elif int(attribute.type) != formal.type.value:
            yield f"has the attribute {formal.name} of another type than the operator's"
        elif (
            attribute.type.name == "STRING"
            and not attribute.is_ref()
            and not isinstance(attribute.value, str)
        ):
            yield f"has bytes that are not text in its attribute {formal.name}"
