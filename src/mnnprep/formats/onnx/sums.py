"""The sums behind the results of an ONNX graph, measured by nodes beside it.

A node that adds up is given a twin that adds up the magnitudes of the same terms, of which only the largest
leaves the graph.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from mnnprep.deps import require
from mnnprep.formats.onnx.graph import STANDARD_DOMAINS

if TYPE_CHECKING:
    from onnx import NodeProto

Shape = tuple[int, ...]
PRODUCTS = frozenset({"MatMul", "Gemm", "Conv", "ConvTranspose"})
MEANS = frozenset({"ReduceMean", "GlobalAveragePool", "AveragePool"})  # their twins are means, too
SQUARES = {"ReduceL2": "ReduceSumSquare", "ReduceSumSquare": "ReduceSumSquare"}
ADDING = PRODUCTS | MEANS | SQUARES.keys() | {"ReduceSum", "ReduceL1", "LpNormalization"}


def adds_up(node: NodeProto) -> bool:
    """Whether there is a twin for *node*."""
    return node.op_type in ADDING and node.domain in STANDARD_DOMAINS


class Twin:
    """The nodes beside one *node*.

    ``outputs`` are the largest sum and the shapes of the node's first two inputs.
    """

    def __init__(self, node: NodeProto, number: int, opset: int) -> None:
        self.name = node.output[0]
        self._node, self._opset = node, opset
        self._prefix = f"/sum/{number}/"
        self._helper = require("onnx.helper")
        self._operands = (
            [name for name in node.input[:2] if name] if node.op_type in PRODUCTS else [node.input[0]]
        )
        self.outputs = [
            self._prefix + "largest",
            *(f"{self._prefix}shape{i}" for i, _ in enumerate(self._operands)),
        ]

    def nodes(self) -> Iterator[NodeProto]:
        """The nodes, in order."""
        make, node, prefix = self._helper.make_node, self._node, self._prefix
        inputs = list(node.input)
        for place, name in enumerate(self._operands):
            inputs[place] = f"{prefix}abs{place}"
            yield make("Abs", [name], [inputs[place]])
            yield make("Shape", [name], [f"{prefix}shape{place}"])
        total = prefix + "total"
        if node.op_type == "LpNormalization":
            yield from self._powers(inputs[0], total)
        else:
            twin = type(node)()
            twin.CopyFrom(node)
            twin.op_type = SQUARES.get(node.op_type, node.op_type)
            twin.name = ""
            twin.input[:] = inputs[:2]  # no bias
            twin.output[:] = [total]
            yield twin
        yield make("ReduceMax", [total], [self.outputs[0]], keepdims=0)

    def _powers(self, value: str, total: str) -> Iterator[NodeProto]:
        axis = next((a.i for a in self._node.attribute if a.name == "axis"), -1)
        order = next((a.i for a in self._node.attribute if a.name == "p"), 2)
        operator = "ReduceL1" if order == 1 else "ReduceSumSquare"
        if self._opset < 18:
            yield self._helper.make_node(operator, [value], [total], axes=[axis])
            return
        axes = self._prefix + "axes"
        yield self._helper.make_node("Constant", [], [axes], value_ints=[axis])
        yield self._helper.make_node(operator, [value, axes], [total])

    def terms(self, shapes: Sequence[Shape], result: Shape) -> int:
        """How many terms are behind one element, given the shapes of the operands and of the result."""
        node, first = self._node, shapes[0]
        if node.op_type == "MatMul":
            return first[-1]
        if node.op_type == "Gemm":
            return first[0 if any(a.name == "transA" and a.i for a in node.attribute) else 1]
        if node.op_type == "Conv":
            return math.prod(shapes[1][1:])
        if node.op_type == "ConvTranspose":
            return shapes[1][0] * math.prod(shapes[1][2:])
        if node.op_type == "AveragePool":
            return math.prod(next(a.ints for a in node.attribute if a.name == "kernel_shape"))
        if node.op_type == "LpNormalization":
            return first[next((a.i for a in node.attribute if a.name == "axis"), -1)]
        return max(1, math.prod(first) // max(1, math.prod(result)))

    def magnitudes(self, largest: float, terms: int) -> float:
        """The sum of magnitudes, from what the twin gives."""
        return largest * terms if self._node.op_type in MEANS else largest
