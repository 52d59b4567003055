"""Changing a graph: new nodes before a given one, and what nothing needs any more taken out."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

from mnnprep.deps import require
from mnnprep.repair.support.reading import Array, ModelView, bodies, scopes

if TYPE_CHECKING:
    import onnx_ir as ir

    from mnnprep.repair.support.reading import AttributeValue, Operand


class Editor:
    """Puts new nodes before a given one, and takes out what nothing needs any more.

    New names are made of the node's own and the rule's: the same model gives the same bytes.  Constants
    are Constant nodes, which any graph and function may have and MNN takes in all of them.
    """

    def __init__(self, view: ModelView, rule: str) -> None:
        self.view = view
        self._ir = require("onnx_ir")
        self._rule = rule
        self._taken = {value.name for top, _ in scopes(view.model) for value in _values(top)}

    def add(self, before: ir.Node, op_type: str, *inputs: Operand, **attributes: AttributeValue) -> ir.Value:
        """A new node of a standard operator in *before*'s graph, just before it; returns its output."""
        name = self.name(before)
        output: ir.Value = self._ir.Value(name=name)
        node = self._ir.node(op_type, list(inputs), attributes, outputs=[output], name=name)
        graph_of(before).insert_before(before, node)
        return output

    def fresh(self, before: ir.Node, count: int) -> list[ir.Value]:
        """New values, for a node that shall stand before *before*."""
        return [self._ir.Value(name=self.name(before)) for _ in range(count)]

    def add_for(
        self,
        outputs: Sequence[ir.Value],
        before: ir.Node,
        op_type: str,
        *inputs: Operand,
        **attributes: AttributeValue,
    ) -> None:
        """A new node of a standard operator just before *before*, whose outputs are *outputs*."""
        node = self._ir.node(op_type, list(inputs), attributes, outputs=outputs, name=self.name(before))
        graph_of(before).insert_before(before, node)

    def constant(self, before: ir.Node, array: Array) -> ir.Value:
        """A new Constant just before the node *before*."""
        value = self.add(before, "Constant", value=self._ir.tensor(array))
        value.shape, value.dtype = self._ir.Shape(array.shape), self._ir.DataType.from_numpy(array.dtype)
        return value

    def replace(self, node: ir.Node, value: ir.Value) -> None:
        """Let *value* take the place of the only output of *node*, its name included; *node* goes."""
        self.replace_outputs(node, {node.outputs[0]: value})

    def replace_outputs(self, node: ir.Node, values: Mapping[ir.Value, ir.Value]) -> None:
        """Let each of *values* take the place of the output of *node* that is its key, names included.

        *node* goes.

        No other of its outputs may have a use.
        """
        known = [(old, new, old.name, old.shape, old.dtype) for old, new in values.items()]
        for old, new in values.items():
            old.replace_all_uses_with(new, replace_graph_outputs=True)
        inputs = list(node.inputs)
        for attribute in node.attributes.values():
            for body in bodies(attribute):
                _empty(body)
        graph_of(node).remove(node, safe=True)
        for value in inputs:
            self.discard(value)
        for _, new, name, shape, dtype in known:
            new.name = name
            new.shape = new.shape if shape is None else shape
            if dtype is not None:
                new.dtype = dtype

    def after(self, node: ir.Node, value: ir.Value, make: Callable[[ir.Node, ir.Value], ir.Value]) -> None:
        """Let what ``make(before, value)`` adds take the place of *value*, an output of *node*, everywhere.

        Nothing is done if it has no use.

        ``before`` is a place in the graph just after *node*.
        """
        if not value.name or not (value.uses() or value.is_graph_output()):
            return
        marker = self._ir.node(
            "Identity", [value], outputs=[self._ir.Value(name=self.name(node))], name=self.name(node)
        )
        graph_of(node).insert_after(node, marker)
        name, shape, dtype = value.name, value.shape, value.dtype
        marker_out = marker.outputs[0]
        value.replace_all_uses_with(marker_out, replace_graph_outputs=True)
        marker.replace_input_with(0, value)
        made = make(marker, value)
        value.name, value.shape = self.name(node), None
        marker_out.replace_all_uses_with(made, replace_graph_outputs=True)
        graph_of(marker).remove(marker, safe=True)
        made.name, made.shape = name, shape
        if dtype is not None:
            made.dtype = dtype

    def discard(self, value: Operand) -> None:
        """Remove the node that computes *value*, and those before it, as far as nothing uses them.

        Initializers stay (they are the source's weights), and so does control flow.
        """
        unused = [value]
        while unused:
            last = unused.pop()
            node = last.producer() if last is not None else None
            if (
                node is None
                or node.graph is None
                or any(o.uses() or o.is_graph_output() for o in node.outputs)
            ):
                continue
            if any(bodies(attribute) for attribute in node.attributes.values()):
                continue
            unused.extend(node.inputs)
            graph_of(node).remove(node, safe=True)

    def name(self, node: ir.Node) -> str:
        """A name that nothing has yet, made of *node*'s and the rule's."""
        stem = f"{next((o.name for o in node.outputs if o.name), None) or node.name}/{self._rule}"
        number = 1
        while f"{stem}/{number}" in self._taken:
            number += 1
        name = f"{stem}/{number}"
        self._taken.add(name)
        return name


def graph_of(node: ir.Node) -> ir.Graph:
    """The graph that *node* stands in.

    Raises:
        ValueError: it was taken out.
    """
    if node.graph is None:
        raise ValueError(f"{node.op_type} {node.name} stands in no graph")
    return node.graph


def _empty(body: ir.Graph) -> None:
    """Take the nodes out of the body of a node that goes, so that they use nothing any more."""
    body.outputs.clear()
    for node in reversed(list(body)):
        for attribute in node.attributes.values():
            for inner in bodies(attribute):
                _empty(inner)
        body.remove(node, safe=True)


def _values(top: ir.Graph | ir.Function) -> Iterator[ir.Value]:
    """Every value that a graph or function, with its bodies, has or uses."""
    for graph in (top, *top.subgraphs()):
        yield from graph.inputs
        yield from getattr(graph, "initializers", {}).values()
    for node in top.all_nodes():
        yield from node.outputs
