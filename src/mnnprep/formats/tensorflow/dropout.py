"""Dropout of TF1 graphs at inference: the inputs that say how much is kept, and the masks that then keep all.

``tf.nn.dropout`` (tensorflow/python/ops/nn_ops.py) divides by the share that is kept and selects by comparing
uniform numbers in [0, 1) with the rate; before TensorFlow 1.13 it multiplied by
``floor(keep_prob + uniform)``.  Where nothing is dropped, both are the identity, whatever is drawn.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import TYPE_CHECKING

from mnnprep.deps import require
from mnnprep.formats.tensorflow import graphs

if TYPE_CHECKING:
    from mnnprep.formats.tensorflow.types import GraphDef, NodeDef

KEPT = re.compile(r"keep_?(prob|rate|ratio)(ability)?(_?\d+)?$", re.IGNORECASE)
DROPPED = re.compile(r"drop(out)?_?(prob|rate|ratio)(ability)?(_?\d+)?$", re.IGNORECASE)
UNIFORM = re.compile(r"^(RandomUniform|StatelessRandomUniform(V2)?)$")
ARITHMETIC: dict[str, Callable[[float, float], float]] = {
    "Add": lambda a, b: a + b,
    "AddV2": lambda a, b: a + b,
    "Sub": lambda a, b: a - b,
    "Mul": lambda a, b: a * b,
    "RealDiv": lambda a, b: a / b if b else float("nan"),
}


def shares(graph: GraphDef) -> dict[str, float]:
    """The inputs of *graph* that say how much a dropout keeps or drops, with their values at inference.

    They are scalars of floats, called so; a default other than the value at inference is left as an input.
    """
    types_pb2 = require("tensorflow.core.framework.types_pb2")
    nodes = graphs.nodes_of(graph)
    found = {}
    for node in graph.node:
        kept, dropped = KEPT.search(node.name), DROPPED.search(node.name)
        if node.op not in graphs.INPUT_OPS or node.attr["dtype"].type != types_pb2.DT_FLOAT:
            continue
        shape = node.attr["shape"].shape
        if not (kept or dropped) or len(shape.dim):
            continue
        value = 1.0 if kept else 0.0
        default = _number(nodes.get(graphs.producer(node.input[0]))) if node.input else value
        if default == value:
            found[node.name] = value
    return found


def resolve(graph: GraphDef, values: dict[str, float]) -> None:
    """Set the inputs *values* for good, and take out the dropouts that then drop nothing."""
    for node in graph.node:
        if node.name in values:
            graphs.set_constant(node, values[node.name])
    found = _Followed(set(values))
    for node in graphs.in_order(graph):
        found.follow(node)
    graphs.redirect(graph, found.alias)


class _Followed:
    """What is known of the tensors.

    ``numbers`` are scalars, ``shares`` those among them that follow from what is kept; ``uniform`` are in
    [0, 1), ``above`` in [1, 2), and ``whole`` are masks that keep all; ``alias`` says what stands for what.
    """

    def __init__(self, shares: set[str]) -> None:
        self.numbers: dict[str, float] = {}
        self.shares = {f"{name}:0" for name in shares}
        self.uniform: set[str] = set()
        self.above: set[str] = set()
        self.whole: set[str] = set()
        self.alias: dict[str, str] = {}

    def follow(self, node: NodeDef) -> None:
        """Note what *node* gives, whose inputs were followed before it."""
        out = f"{node.name}:0"
        data = [graphs.tensor(i) for i in node.input if not i.startswith("^")]
        data = [self.alias.get(name, name) for name in data]
        if node.op == "Const" and (number := _number(node)) is not None:
            self.numbers[out] = number
        elif UNIFORM.match(node.op):
            self.uniform.add(out)
        elif node.op in ("Identity", "Cast") and data:
            for known in (self.uniform, self.above, self.whole, self.shares):
                if data[0] in known:
                    known.add(out)
            if data[0] in self.numbers:
                self.numbers[out] = self.numbers[data[0]]
        elif node.op in ARITHMETIC:
            self._arithmetic(node.op, out, data)
        else:
            self._mask(node.op, out, data)

    def _arithmetic(self, op: str, out: str, data: list[str]) -> None:
        left, right = (self.numbers.get(name) for name in data)
        if left is not None and right is not None:
            self.numbers[out] = ARITHMETIC[op](left, right)
            if self.shares & set(data):
                self.shares.add(out)
            return
        number, other = (left, data[1]) if left is not None else (right, data[0])
        added, scaled = op in ("Add", "AddV2"), op == "Mul"
        if other in self.uniform and ((added and number == 0) or (scaled and number == 1)):
            self.uniform.add(out)
        elif other in self.uniform and added and number == 1:
            self.above.add(out)
        elif scaled and self.whole & set(data):
            self.alias[out] = data[0] if data[1] in self.whole else data[1]
        elif op == "RealDiv" and right == 1 and data[1] in self.shares:
            self.alias[out] = data[0]
        elif scaled and number == 1 and self.shares & set(data):
            self.alias[out] = other

    def _mask(self, op: str, out: str, data: list[str]) -> None:
        if op == "Floor" and data[0] in self.above:
            self.whole.add(out)
        elif op == "GreaterEqual" and data[0] in self.uniform:
            if self.numbers.get(data[1], 1.0) <= 0:
                self.whole.add(out)
        elif op == "Less" and data[0] in self.uniform:
            if self.numbers.get(data[1], 0.0) >= 1:
                self.whole.add(out)
        elif op in ("Select", "SelectV2") and data[0] in self.whole:
            self.alias[out] = data[1]


def _number(node: NodeDef | None) -> float | None:
    """The number that a Const of a floating scalar holds."""
    if node is None or node.op != "Const":
        return None
    held = node.attr["value"].tensor
    types_pb2 = require("tensorflow.core.framework.types_pb2")
    if held.dtype != types_pb2.DT_FLOAT or len(held.tensor_shape.dim):
        return None
    return float(require("tensorflow.python.framework.tensor_util").MakeNdarray(held))
