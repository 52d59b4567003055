"""The size of a node's results, known before anything is computed.

It follows from the inputs' shapes and from those values that are sizes.

An operator whose results can't be told from that is not in the table, and is not computed beforehand.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from mnnprep.repair.support.reading import Array

if TYPE_CHECKING:
    import onnx_ir as ir


Inputs = Sequence[Array | None]
Count = Callable[["ir.Node", Inputs], int]


def result_elements(node: ir.Node, inputs: Inputs) -> int | None:
    """Return an upper bound of the elements that *node* gives for *inputs*, all outputs together.

    An input is None if it is left out.

    None if none is known: an operator that is not in the table, or sizes that are not sizes.
    """
    count = _TABLE.get(node.op_type)
    try:
        return count(node, inputs) if count is not None else None
    except (IndexError, KeyError, TypeError, ValueError, AttributeError, OverflowError, ZeroDivisionError):
        return None


def _given(inputs: Inputs) -> list[Array]:
    return [array for array in inputs if array is not None]


def _first(node: ir.Node, inputs: Inputs) -> int:
    return int(_array(inputs, 0).size) * len(node.outputs)


def _all(node: ir.Node, inputs: Inputs) -> int:
    return sum(array.size for array in _given(inputs)) * len(node.outputs)


def _broadcast(node: ir.Node, inputs: Inputs) -> int:
    """Return the elements of the inputs' common shape.

    They are the product of the largest extents, without looking whether they fit.
    """
    shapes = [array.shape for array in _given(inputs)]
    rank = max((len(shape) for shape in shapes), default=0)
    padded = [(1,) * (rank - len(shape)) + shape for shape in shapes]
    return math.prod(max(extents) for extents in zip(*padded, strict=True))


def _array(inputs: Inputs, index: int) -> Array:
    array = inputs[index]
    if array is None:
        raise IndexError(index)
    return array


def _numbers(inputs: Inputs, index: int) -> list[int]:
    """An input's values as sizes."""
    numbers = [int(n) for n in _array(inputs, index).reshape(-1)]
    if min(numbers, default=0) < 0:
        raise ValueError("a size below 0")
    return numbers


def _range(_: ir.Node, inputs: Inputs) -> int:
    start, limit, delta = (_array(inputs, i).reshape(()).item() for i in range(3))
    count: int = math.ceil((limit - start) / delta)
    return max(0, count)


def _constant_of_shape(_: ir.Node, inputs: Inputs) -> int:
    return math.prod(_numbers(inputs, 0))


def _expand(_: ir.Node, inputs: Inputs) -> int:
    wanted = _numbers(inputs, 1)
    own = _array(inputs, 0).shape
    rank = max(len(wanted), len(own))
    pairs = zip((1,) * (rank - len(own)) + own, [1] * (rank - len(wanted)) + wanted, strict=True)
    return math.prod(max(pair) for pair in pairs)


def _tile(_: ir.Node, inputs: Inputs) -> int:
    if len(inputs) > 2:  # before opset 6: tiles and an axis
        return int(_array(inputs, 0).size) * max(1, *_numbers(inputs, 1))
    return int(_array(inputs, 0).size) * math.prod(_numbers(inputs, 1))


def _one_hot(_: ir.Node, inputs: Inputs) -> int:
    return int(_array(inputs, 0).size) * math.prod(_numbers(inputs, 1))


def _pad(node: ir.Node, inputs: Inputs) -> int:
    pads = _numbers(inputs, 1) if len(inputs) > 1 else [int(n) for n in node.attributes["pads"].as_ints()]
    return _padded(_array(inputs, 0).shape, pads)


def _padded(shape: tuple[int, ...], pads: list[int]) -> int:
    """With axes given or not: at most the widest extent everywhere that a pad is."""
    half = len(pads) // 2
    added = [pads[i] + pads[half + i] for i in range(half)]
    if half == len(shape):
        return math.prod(extent + more for extent, more in zip(shape, added, strict=True))
    return math.prod(extent + sum(added) for extent in shape)


def _gather(node: ir.Node, inputs: Inputs) -> int:
    data, indices = _array(inputs, 0), _array(inputs, 1)
    axis = node.attributes.get_int("axis", 0)
    return int(data.size // max(1, data.shape[axis]) * indices.size)


def _gather_nd(_: ir.Node, inputs: Inputs) -> int:
    data, indices = _array(inputs, 0), _array(inputs, 1)
    return int(indices.size // max(1, indices.shape[-1]) * math.prod(data.shape[1:]))


def _non_zero(_: ir.Node, inputs: Inputs) -> int:
    return int(_array(inputs, 0).size) * max(1, _array(inputs, 0).ndim)


def _few(_: ir.Node, inputs: Inputs) -> int:
    """A shape or a number."""
    return max(1, _array(inputs, 0).ndim)


def _top_k(_: ir.Node, inputs: Inputs) -> int:
    return 2 * int(_array(inputs, 0).size)


_BROADCAST = (
    "Add",
    "Sub",
    "Mul",
    "Div",
    "Mod",
    "Pow",
    "Min",
    "Max",
    "Sum",
    "Mean",
    "And",
    "Or",
    "Xor",
    "BitShift",
    "BitwiseAnd",
    "BitwiseOr",
    "BitwiseXor",
    "Equal",
    "Greater",
    "GreaterOrEqual",
    "Less",
    "LessOrEqual",
    "Where",
    "Clip",
    "PRelu",
)
_SAME = (
    "Abs",
    "Acos",
    "Acosh",
    "Asin",
    "Asinh",
    "Atan",
    "Atanh",
    "BitwiseNot",
    "Cast",
    "CastLike",
    "Ceil",
    "Celu",
    "Cos",
    "Cosh",
    "CumSum",
    "Elu",
    "Erf",
    "Exp",
    "Floor",
    "Gelu",
    "HardSigmoid",
    "HardSwish",
    "Identity",
    "IsInf",
    "IsNaN",
    "LeakyRelu",
    "Log",
    "LogSoftmax",
    "Mish",
    "Neg",
    "Not",
    "Reciprocal",
    "Relu",
    "Round",
    "Selu",
    "Sigmoid",
    "Sign",
    "Sin",
    "Sinh",
    "Softmax",
    "Softplus",
    "Softsign",
    "Sqrt",
    "Tan",
    "Tanh",
    "ThresholdedRelu",
    "Trilu",
    "Reshape",
    "Squeeze",
    "Unsqueeze",
    "Flatten",
    "Transpose",
    "Slice",
    "Split",
    "DepthToSpace",
    "SpaceToDepth",
    "ReverseSequence",
    "Compress",
    "ArgMax",
    "ArgMin",
    "ReduceL1",
    "ReduceL2",
    "ReduceLogSum",
    "ReduceLogSumExp",
    "ReduceMax",
    "ReduceMean",
    "ReduceMin",
    "ReduceProd",
    "ReduceSum",
    "ReduceSumSquare",
)
_TABLE: dict[str, Count] = {
    **dict.fromkeys(_BROADCAST, _broadcast),
    **dict.fromkeys(_SAME, _first),
    **dict.fromkeys(("Concat", "Unique", "ScatterElements", "ScatterND", "Scatter", "GatherElements"), _all),
    "Range": _range,
    "ConstantOfShape": _constant_of_shape,
    "Expand": _expand,
    "Tile": _tile,
    "OneHot": _one_hot,
    "Pad": _pad,
    "Gather": _gather,
    "GatherND": _gather_nd,
    "NonZero": _non_zero,
    "TopK": _top_k,
    "Shape": _few,
    "Size": _few,
    "EyeLike": _first,
}
