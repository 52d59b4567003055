"""How large the constants become that an ONNX graph computes for itself.

A few bytes may stand for gigabytes: a Range to 2^30, an Expand, a Concat that doubles 40 times. Runtimes
compute them when they load the model. This module follows the shapes of what initializers and constants alone
give, by the definitions of the operators (docs/Operators.md), before anything is computed. A result whose
shape can't be told is not followed further.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from mnnprep.deps import require
from mnnprep.errors import RefusedError

if TYPE_CHECKING:
    from onnx import GraphProto, ModelProto, NodeProto, TensorProto

    Ints = npt.NDArray[np.int64]

LIMIT = 1 << 28  # elements: 1 GiB of float32
SMALL = 1 << 12  # elements of a constant whose values are followed, as sizes
Shape = tuple[int, ...]


def require_bounded(model: ModelProto, name: str) -> None:
    """Refuse the *model*, read from the file *name*, if a constant that it computes has over LIMIT elements.

    Raises:
        RefusedError: naming the node.
    """
    _follow(model.graph, _Constants(), name)


def _follow(graph: GraphProto, constants: _Constants, name: str) -> None:
    """Follow the constants of *graph* and of the bodies in it."""
    for tensor in graph.initializer:
        constants.add(tensor.name, tensor)
    for node in graph.node:
        shape = constants.follow(node)
        if shape is not None and math.prod(shape) > LIMIT:
            raise RefusedError(
                f"the model computes a constant of {math.prod(shape):.3g} elements when it is loaded",
                seen=f"{name}: {node.op_type} {node.name or node.output[0]}, {list(shape)}",
                next="compute it from an input, or store what the model needs of it",
            )
        for attribute in node.attribute:
            for body in (*([attribute.g] if attribute.HasField("g") else []), *attribute.graphs):
                _follow(body, constants, name)


class _Constants:
    """The shapes of the values that are constants, and the small whole numbers among them."""

    def __init__(self) -> None:
        self.shapes: dict[str, Shape] = {}
        self.values: dict[str, Ints | npt.NDArray[np.float64]] = {}

    def add(self, name: str, tensor: TensorProto) -> None:
        self.shapes[name] = tuple(tensor.dims)
        stored = math.prod(tensor.dims) <= SMALL and not tensor.external_data
        if stored and (tensor.raw_data or tensor.int64_data or tensor.int32_data or tensor.float_data):
            array = require("onnx.numpy_helper").to_array(tensor)
            if array.dtype.kind in "iuf":
                self.values[name] = array

    def follow(self, node: NodeProto) -> Shape | None:
        """The shape of what *node* computes from constants alone; None if it does not, or can't be told."""
        if node.op_type == "Constant":
            for attribute in node.attribute:
                if attribute.name == "value":
                    self.add(node.output[0], attribute.t)
                elif attribute.name == "value_int":
                    self._learn(node.output[0], np.array(attribute.i))
                elif attribute.name == "value_ints":
                    self._learn(node.output[0], np.array(attribute.ints))
            return None
        inputs = [name for name in node.input if name]
        rule = RULES.get(node.op_type) if node.domain in ("", "ai.onnx") else None
        if rule is None or not inputs or not all(name in self.shapes for name in inputs):
            return None
        attributes = {a.name: require("onnx.helper").get_attribute_value(a) for a in node.attribute}
        try:
            shape = rule(self, inputs, attributes)
        except (IndexError, KeyError, TypeError, ValueError, OverflowError, ZeroDivisionError):
            return None
        if min(shape, default=0) < 0:
            return None
        self.shapes[node.output[0]] = shape
        self._compute(node, inputs, attributes)
        return shape

    def _learn(self, name: str, array: npt.NDArray[Any]) -> None:
        self.shapes[name] = array.shape
        self.values[name] = array

    def _compute(self, node: NodeProto, inputs: list[str], attributes: Mapping[str, Any]) -> None:
        """The value of a small result, for operators that sizes are computed with."""
        output, compute = node.output[0], VALUES.get(node.op_type)
        given = [self.values[name] for name in inputs if name in self.values]
        if compute is None or len(given) < len(inputs) or math.prod(self.shapes[output]) > SMALL:
            return
        with contextlib.suppress(IndexError, TypeError, ValueError, ZeroDivisionError):
            self.values[output] = np.asarray(compute(given, attributes)).reshape(self.shapes[output])

    def numbers(self, name: str) -> list[int]:
        """The values of a constant as sizes. Raises KeyError if they are not known."""
        return [int(n) for n in self.values[name].reshape(-1)]


Rule = Callable[[_Constants, list[str], Mapping[str, Any]], Shape]


def _same(known: _Constants, inputs: list[str], _: Mapping[str, Any]) -> Shape:
    return known.shapes[inputs[0]]


def _broadcast(known: _Constants, inputs: list[str], _: Mapping[str, Any]) -> Shape:
    return _common([known.shapes[name] for name in inputs])


def _common(shapes: list[Shape]) -> Shape:
    rank = max(map(len, shapes))
    padded = [(1,) * (rank - len(shape)) + shape for shape in shapes]
    return tuple(max(extents) for extents in zip(*padded, strict=True))


def _range(known: _Constants, inputs: list[str], _: Mapping[str, Any]) -> Shape:
    start, limit, delta = (known.values[name].reshape(()).item() for name in inputs)
    return (max(0, math.ceil((limit - start) / delta)),)


def _concat(known: _Constants, inputs: list[str], attributes: Mapping[str, Any]) -> Shape:
    shapes = [list(known.shapes[name]) for name in inputs]
    axis = attributes["axis"]
    shapes[0][axis] = sum(shape[axis] for shape in shapes)
    return tuple(shapes[0])


def _gather(known: _Constants, inputs: list[str], attributes: Mapping[str, Any]) -> Shape:
    data, indices = known.shapes[inputs[0]], known.shapes[inputs[1]]
    axis = attributes.get("axis", 0) % len(data)
    return (*data[:axis], *indices, *data[axis + 1 :])


def _tile(known: _Constants, inputs: list[str], _: Mapping[str, Any]) -> Shape:
    shape, repeats = known.shapes[inputs[0]], known.numbers(inputs[1])
    return tuple(extent * times for extent, times in zip(shape, repeats, strict=True))


def _pad(known: _Constants, inputs: list[str], attributes: Mapping[str, Any]) -> Shape:
    shape = known.shapes[inputs[0]]
    pads = known.numbers(inputs[1]) if len(inputs) > 1 else list(attributes["pads"])
    half = len(shape)
    return tuple(n + pads[i] + pads[half + i] for i, n in enumerate(shape))


def _reshape(known: _Constants, inputs: list[str], _: Mapping[str, Any]) -> Shape:
    count, wanted = math.prod(known.shapes[inputs[0]]), known.numbers(inputs[1])
    rest = math.prod(n for n in wanted if n > 0)
    return tuple(count // rest if n == -1 else n for n in wanted)


def _one_hot(known: _Constants, inputs: list[str], _: Mapping[str, Any]) -> Shape:
    return (*known.shapes[inputs[0]], *known.numbers(inputs[1]))


RULES: dict[str, Rule] = {
    **dict.fromkeys(["Cast", "Identity", "Neg", "Abs", "Floor", "Ceil", "Sqrt", "Exp", "Not"], _same),
    **dict.fromkeys(
        ["Add", "Sub", "Mul", "Div", "Pow", "Mod", "Max", "Min", "Equal", "Less", "Where"], _broadcast
    ),
    "Range": _range,
    "Expand": lambda known, i, _: _common([known.shapes[i[0]], tuple(known.numbers(i[1]))]),
    "ConstantOfShape": lambda known, i, _: tuple(known.numbers(i[0])),
    "Tile": _tile,
    "Concat": _concat,
    "Gather": _gather,
    "Pad": _pad,
    "Reshape": _reshape,
    "OneHot": _one_hot,
    "Shape": lambda known, i, _: (len(known.shapes[i[0]]),),
    "Squeeze": lambda known, i, _: tuple(n for n in known.shapes[i[0]] if n != 1),
}
VALUES: dict[str, Callable[[list[npt.NDArray[Any]], Mapping[str, Any]], Any]] = {
    "Cast": lambda given, _: given[0],
    "Identity": lambda given, _: given[0],
    "Add": lambda given, _: given[0] + given[1],
    "Sub": lambda given, _: given[0] - given[1],
    "Mul": lambda given, _: given[0] * given[1],
    "Div": lambda given, _: given[0] // given[1],
    "Concat": lambda given, attributes: np.concatenate(given, attributes["axis"]),
    "Gather": lambda given, attributes: np.take(given[0], given[1].astype(int), attributes.get("axis", 0)),
    "Reshape": lambda given, _: given[0],
    "Squeeze": lambda given, _: given[0],
}
