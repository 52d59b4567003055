"""What rules have in common: finding nodes, constants and shapes in an onnx-ir model, and putting in new nodes.

Reading never changes the model, not even its names or inferred shapes, so that a rule that finds
nothing leaves it as it was.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt

from mnnprep.deps import require

Array = npt.NDArray[Any]

STANDARD_DOMAINS = ("", "ai.onnx")
IDENTITIES = 8  # how many Identity nodes may stand between a constant and its use
# Operators whose output has the rank of their first input.
LIKE_THE_FIRST = frozenset({"BatchNormalization", "Concat", "CumSum", "LayerNormalization", "Pad", "Slice", "Split", "Trilu"})
RANK_STEPS = 12  # how many nodes back the rank of a value is sought
# Operators whose output has the largest rank among their inputs.
ELEMENTWISE = frozenset({
    "Abs", "Add", "Cast", "Clip", "Div", "Dropout", "Erf", "Exp", "Expand", "Identity", "Max", "Min", "Mul", "Neg", "Pow", "Relu",
    "Sigmoid", "Softmax", "Sqrt", "Sub", "Tanh", "Where",
})  # fmt: skip


def nodes(model: Any, op_type: str) -> list[tuple[Any, int]]:
    """Every node of the standard operator *op_type*, with the opset it is read by: in the main graph, the bodies of
    control flow and the model's functions.  A node whose attributes a function's caller gives is left out."""
    return [
        (node, opset)
        for top, opset in _scopes(model)
        for node in top.all_nodes()
        if node.op_type == op_type and node.domain in STANDARD_DOMAINS and not any(a.is_ref() for a in node.attributes.values())
    ]


def _scopes(model: Any) -> Iterator[tuple[Any, int]]:
    for top in (model.graph, *model.functions.values()):
        imports = top.opset_imports
        yield top, next((imports[domain] for domain in STANDARD_DOMAINS if domain in imports), 0)


def label(node: Any) -> str:
    """A node as an engineer looks for it: its operator and its name (or first output)."""
    return f"{node.op_type} {node.name or node.outputs[0].name}"


def producer(value: Any, *op_types: str) -> Any:
    """The node that computes *value* if it is one of these standard operators, else None."""
    node = value.producer() if value is not None else None
    return node if node is not None and node.op_type in op_types and node.domain in STANDARD_DOMAINS else None


def operands(node: Any) -> tuple[tuple[Any, Any], tuple[Any, Any]]:
    """The two inputs of a node whose order does not matter, both ways round."""
    left, right = node.inputs
    return (left, right), (right, left)


def tensor(value: Any) -> Any:
    """The tensor that *value* always is: an initializer (not one that a caller may override) or a Constant; else None."""
    for _ in range(IDENTITIES):
        if value is None:
            return None
        if value.is_initializer():
            return None if value.is_graph_input() else value.const_value
        node = producer(value, "Identity", "Constant")
        if node is None:
            return None
        if node.op_type == "Identity":
            value = node.inputs[0]
            continue
        return _constant_node(node)
    return None


def _constant_node(node: Any) -> Any:
    ir = require("onnx_ir")
    types = {"value_int": np.int64, "value_ints": np.int64, "value_float": np.float32, "value_floats": np.float32}
    for name, attribute in node.attributes.items():
        if attribute.is_ref():
            return None
        if name == "value":
            return attribute.as_tensor()
        if name in types:
            return ir.tensor(np.array(attribute.value, types[name]))
    return None  # text, or sparse


def scalar(value: Any) -> float | None:
    """The number that *value* always is, if it is one number; complex and text are not."""
    found = tensor(value)
    if found is None or math.prod(found.shape.numpy()) != 1:
        return None
    array = found.numpy().reshape(-1)
    return None if array.dtype.kind in "cOSU" else float(array[0])


class Shapes:
    """The shapes and dtypes of a model's values: ONNX's inference, else what the file declares.

    The inference runs on a copy.  Where it fails, and inside functions, only what is declared is known.
    """

    def __init__(self, model: Any) -> None:
        copy = model.clone()
        try:
            require("onnx_ir.passes.common.shape_inference").infer_shapes(copy, check_type=False, strict_mode=False, data_prop=True)
        except Exception:  # an operator that ONNX does not know, a contradiction in the file: the rules can do without
            copy = model
        self._inferred: dict[Any, Any] = {}
        self._pair(model.graph, copy.graph)

    def _pair(self, graph: Any, copy: Any) -> None:
        self._inferred.update(zip(graph.inputs, copy.inputs, strict=True))
        self._inferred.update((value, copy.initializers[name]) for name, value in graph.initializers.items())
        for node, twin in zip(graph, copy, strict=True):
            self._inferred.update(zip(node.outputs, twin.outputs, strict=True))
            for name, attribute in node.attributes.items():
                for body, twin_body in zip(_bodies(attribute), _bodies(twin.attributes[name]), strict=True):
                    self._pair(body, twin_body)

    def dims(self, value: Any) -> tuple[int | str | None, ...] | None:
        """The sizes of *value*: a number, a name that stands for the same number everywhere, or None; None without a rank."""
        twin = self._inferred.get(value, value)
        shape = twin.shape if twin.shape is not None else value.shape
        return None if shape is None else tuple(d if isinstance(d, int) else d.value for d in shape)

    def rank_at_least(self, value: Any, steps: int = RANK_STEPS) -> int:
        """A lower bound of the rank of *value*: where no shape is known, what the nodes before it say of it; 0 if nothing.

        ONNX's inference loses every rank behind an Expand to a computed shape; the Transpose before a product still tells it.
        """
        dims = self.dims(value) if value is not None else ()
        if dims is not None:
            return len(dims)
        node = value.producer()
        if node is None or not steps or node.domain not in STANDARD_DOMAINS:
            return 0
        if node.op_type == "Transpose":
            return len(node.attributes.get_ints("perm", ()))
        if node.op_type == "MatMul":
            ranks = [self.rank_at_least(used, steps - 1) for used in node.inputs]
            return max(ranks) if min(ranks) >= 2 else 0
        if node.op_type in LIKE_THE_FIRST:
            return self.rank_at_least(node.inputs[0], steps - 1)
        if node.op_type in ELEMENTWISE:
            return max((self.rank_at_least(used, steps // 2) for used in node.inputs), default=0)
        return 0

    def dtype(self, value: Any) -> Any:
        """The ``onnx_ir.DataType`` of *value*, or None."""
        twin = self._inferred.get(value, value)
        return twin.dtype if twin.dtype is not None else value.dtype


def _bodies(attribute: Any) -> tuple[Any, ...]:
    types = require("onnx_ir").AttributeType
    if attribute.type == types.GRAPH:
        return (attribute.value,)
    return tuple(attribute.value) if attribute.type == types.GRAPHS else ()


class Editor:
    """Puts new nodes before a given one, and takes out what nothing needs any more.

    New names are made of the place's own and the rule's: the same model gives the same bytes.  Constants
    are Constant nodes, which any graph and function may have and MNN takes in all of them.
    """

    def __init__(self, model: Any, rule: str) -> None:
        self._ir = require("onnx_ir")
        self._rule = rule
        self._taken = {value.name for top, _ in _scopes(model) for value in _values(top)}

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
            if any(_bodies(attribute) for attribute in node.attributes.values()):
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
