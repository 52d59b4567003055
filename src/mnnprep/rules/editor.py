"""Changing a graph: new nodes before a given one, and what nothing needs any more taken out."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from mnnprep.deps import require
from mnnprep.rules.reading import Array, Reading, bodies, scopes


class Editor:
    """Puts new nodes before a given one, and takes out what nothing needs any more.

    New names are made of the place's own and the rule's: the same model gives the same bytes.  Constants
    are Constant nodes, which any graph and function may have and MNN takes in all of them.
    """

    def __init__(self, reading: Reading, rule: str) -> None:
        self.reading = reading
        self._ir = require("onnx_ir")
        self._rule = rule
        self._taken = {value.name for top, _ in scopes(reading.model) for value in _values(top)}

    def add(self, before: Any, op_type: str, *inputs: Any, **attributes: Any) -> Any:
        """A new node of a standard operator in *before*'s graph, just before it; returns its output."""
        name = self._name(before)
        output = self._ir.Value(name=name)
        node = self._ir.node(op_type, list(inputs), attributes, outputs=[output], name=name)
        before.graph.insert_before(before, node)
        return output

    def constant(self, before: Any, array: Array) -> Any:
        """A new Constant just before the node *before*."""
        value = self.add(before, "Constant", value=self._ir.tensor(array))
        value.shape, value.dtype = self._ir.Shape(array.shape), self._ir.DataType.from_numpy(array.dtype)
        return value

    def replace(self, node: Any, value: Any) -> None:
        """Let *value* take the place of the only output of *node*, its name included; *node* goes."""
        old = node.outputs[0]
        name, shape, dtype = old.name, old.shape, old.dtype
        old.replace_all_uses_with(value, replace_graph_outputs=True)
        self.discard(old)
        value.name = name
        value.shape = value.shape if shape is None else shape
        if dtype is not None:
            value.dtype = dtype

    def discard(self, value: Any) -> None:
        """Remove the node that computes *value*, and those before it, as far as nothing uses them.

        Initializers stay (they are the source's weights), and so does control flow.
        """
        unused = [value]
        while unused:
            last = unused.pop()
            node = last.producer() if last is not None else None
            if node is None or node.graph is None or any(o.uses() or o.is_graph_output() for o in node.outputs):
                continue
            if any(bodies(attribute) for attribute in node.attributes.values()):
                continue
            unused.extend(node.inputs)
            node.graph.remove(node, safe=True)

    def _name(self, node: Any) -> str:
        stem = f"{node.outputs[0].name or node.name}/{self._rule}"
        number = 1
        while f"{stem}/{number}" in self._taken:
            number += 1
        name = f"{stem}/{number}"
        self._taken.add(name)
        return name


def _values(top: Any) -> Iterator[Any]:
    """Every value that a graph or function, with its bodies, has or uses."""
    for graph in (top, *top.subgraphs()):
        yield from graph.inputs
        yield from getattr(graph, "initializers", {}).values()
    for node in top.all_nodes():
        yield from node.outputs
