"""Putting roundings to half precision into an ONNX graph.

Each initializer and each result of an operator goes through a pair of Casts, to the type and back, those in
the bodies of control flow too.  onnxruntime keeps the pairs where its graph optimizations are disabled, and
computes as before in between, in float32.

Left as they are: what only moves values that are rounded already, what the graph computes of sizes alone on
its way to a size (a factor of 4/3 would give another size), and the scales of quantized integers.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING

import numpy as np

from mnnprep.deps import require
from mnnprep.errors import RefusedError
from mnnprep.formats.onnx import graph as graphs
from mnnprep.formats.onnx.element_types import ElementTypes, Types, element_type
from mnnprep.formats.onnx.outline import taken
from mnnprep.model.half import LIMITS, HalfType

if TYPE_CHECKING:
    from onnx import GraphProto, ModelProto, NodeProto, TensorProto

DATA_TYPES = {"float16": 10, "bfloat16": 16}  # TensorProto.DataType
FLOATING = frozenset({1, 10, 11, 16})  # float, float16, double, bfloat16
# Their results are values of their operands, or bounded by them without a rounding of their own.
MOVES = frozenset(
    {
        "Abs",
        "Compress",
        "Concat",
        "DepthToSpace",
        "Expand",
        "Flatten",
        "Gather",
        "GatherElements",
        "GatherND",
        "Identity",
        "Max",
        "MaxPool",
        "Min",
        "Neg",
        "Relu",
        "Reshape",
        "Slice",
        "SpaceToDepth",
        "Split",
        "Squeeze",
        "Tile",
        "Transpose",
        "Unsqueeze",
        "Where",
    }
)
# Operands that say a size, or a place in a tensor: operator -> their places among the inputs.
SIZES: dict[str, tuple[int, ...]] = {
    "ConstantOfShape": (0,),
    "Expand": (1,),
    "NonMaxSuppression": (2,),
    "OneHot": (1,),
    "Pad": (1,),
    "Range": (0, 1, 2),
    "Reshape": (1,),
    "Resize": (1, 2, 3),
    "Slice": (1, 2, 3, 4),
    "Split": (1,),
    "Tile": (1,),
    "TopK": (1,),
    "Upsample": (1,),
}
RESIZE_10 = (1,)  # Resize of opset 10: X and scales
# The scales of integers: operator -> their places.
SCALES: dict[str, tuple[int, ...]] = {
    "QuantizeLinear": (1,),
    "DequantizeLinear": (1,),
    "QLinearConv": (1, 4, 6),
    "QLinearMatMul": (1, 4, 6),
}


class Rounding:
    """Puts the Casts into a model.

    ``ask`` gives the types of values of the main graph whose operators ONNX does not know.  ``kept`` are
    further values that stay exact.  Those in ``saturated`` end at the largest finite number in place of
    becoming infinite.
    """

    def __init__(
        self,
        model: ModelProto,
        rounding: HalfType,
        ask: Callable[[list[str]], Types],
        *,
        kept: frozenset[str] = frozenset(),
        saturated: frozenset[str] = frozenset(),
    ) -> None:
        self._model = model
        self._ask = ask
        self._foreign: Types | None = None
        self._type = DATA_TYPES[rounding]
        self._types = ElementTypes(model)
        self._exact = exact_values(model) | kept
        self._saturated = saturated
        self._largest = LIMITS[rounding].largest
        self._suffix = _unused_suffix(model, "/exact")
        self._helper = require("onnx.helper")
        self._bounds: list[TensorProto] = []

    def apply(self) -> None:
        """Round every floating initializer and result of the model, in place.

        Raises:
            RefusedError: the type of a result can't be told.
        """
        self._graph(self._model.graph, self._types.entering(self._model.graph))
        self._model.graph.initializer.extend(self._bounds)

    def _graph(self, graph: GraphProto, known: Types) -> None:
        nodes: list[NodeProto] = []
        for tensor in graph.initializer:
            if tensor.data_type in FLOATING and tensor.name not in self._exact:
                nodes += self._pair(tensor.name, tensor.data_type)
                tensor.name += self._suffix
        held = {t.name.removesuffix(self._suffix) for t in graph.initializer}
        given = [i for i in graph.input if i.name not in held]
        del graph.input[:]
        graph.input.extend(given)  # an initializer may stand among the inputs, to be overridden
        for node in graph.node:
            found = self._types.leaving(node, known)
            unknown = [name for name in node.output if name and name not in found]
            if unknown:
                found |= self._unknown(node, unknown)
            for body in graphs.subgraphs(node):
                self._graph(body, self._types.within(node, body, known))
            known |= found
            nodes.append(node)
            nodes += self._results(node, found)
        made = [type(node).FromString(node.SerializeToString()) for node in nodes]
        del graph.node[:]
        graph.node.extend(made)

    def _results(self, node: NodeProto, types: Types) -> Iterator[NodeProto]:
        """The Casts after *node*, whose results get other names."""
        if node.op_type in MOVES and node.domain in graphs.STANDARD_DOMAINS and not self._moves_exact(node):
            return
        for place, name in enumerate(node.output):
            element = element_type(types.get(name))
            if name and element in FLOATING and name not in self._exact:
                node.output[place] = name + self._suffix
                yield from self._pair(name, element)

    def _moves_exact(self, node: NodeProto) -> bool:
        """Whether *node* moves a value that was not rounded."""
        return any(name in self._exact for name in node.input)

    def _pair(self, name: str, element: int) -> Iterator[NodeProto]:
        exact, half = name + self._suffix, f"{name}{self._suffix}/half"
        if name in self._saturated:
            within = f"{name}{self._suffix}/within"
            bounds = [self._bound(-1, element), self._bound(1, element)]
            yield self._helper.make_node("Clip", [exact, *bounds], [within])
            exact = within
        yield self._helper.make_node("Cast", [exact], [half], half, to=self._type)
        yield self._helper.make_node("Cast", [half], [name], name + self._suffix, to=element)

    def _bound(self, sign: int, element: int) -> str:
        """The name of an initializer that holds the largest number of the type, or the least."""
        name = f"{self._suffix}/{'least' if sign < 0 else 'largest'}/{element}"
        if all(tensor.name != name for tensor in self._bounds):
            dtype = self._helper.tensor_dtype_to_np_dtype(element)
            value = np.array(sign * self._largest).astype(dtype)
            self._bounds.append(require("onnx.numpy_helper").from_array(value, name))
        return name

    def _unknown(self, node: NodeProto, names: list[str]) -> Types:
        """The types of the results *names* of a *node* that ONNX does not know.

        Raises:
            RefusedError: onnxruntime does not know them either, or they are in a body of control flow.
        """
        if self._foreign is None:
            nodes = [n for n in self._model.graph.node if n.domain not in graphs.STANDARD_DOMAINS]
            asked = dict.fromkeys(o for n in (*nodes, node) for o in n.output if o)
            own = {o for n in self._model.graph.node for o in n.output}
            self._foreign = self._ask([name for name in asked if name in own])
        found = {name: kind for name, kind in self._foreign.items() if name in names}
        if len(found) < len(names):
            raise RefusedError(
                "this model can't be rounded to half precision: the type of a value is unknown",
                seen=graphs.label(node),
                next="export the model with standard operators",
            )
        return found


def _unused_suffix(model: ModelProto, suffix: str) -> str:
    """Return *suffix*, longer where a name in the model ends in it already."""
    names = {o for node in graphs.all_nodes(model.graph) for o in node.output}
    names |= {i.name for i in (*model.graph.input, *model.graph.initializer)}
    while any(name.endswith(suffix) for name in names):
        suffix += "_"
    return suffix


def exact_values(model: ModelProto) -> frozenset[str]:
    """The values that rounding would turn into another graph: sizes on their way, and scales of integers.

    Only those that no input's values reach.
    """
    free = _sized(model)
    wanted: set[str] = set()
    for node in reversed(list(graphs.all_nodes(model.graph))):
        sizes = SIZES.get(node.op_type, ())
        if node.op_type == "Resize" and len(node.input) == 2:
            sizes = RESIZE_10
        for place in (*sizes, *SCALES.get(node.op_type, ())):
            if place < len(node.input) and node.input[place]:
                wanted.add(node.input[place])
        if wanted.intersection(node.output) and free.issuperset(o for o in node.output if o):
            wanted.update(name for name in taken(node) if name)
    return frozenset(wanted & free)


def _sized(model: ModelProto) -> set[str]:
    """The values that follow from constants and from the shapes of values alone."""
    graph = model.graph
    free = {t.name for t in graph.initializer}

    def visit(nodes: Iterable[NodeProto]) -> None:
        for node in nodes:
            for body in graphs.subgraphs(node):
                free.update(t.name for t in body.initializer)
                visit(body.node)
            if node.op_type in graphs.SHAPE_ONLY or all(name in free for name in taken(node) if name):
                free.update(o for o in node.output if o)

    visit(graph.node)
    return free
