"""Exponentials that half precision does not hold, though what is made of them is ordinary.

Measured with MNN 3.6.1, precision ``low``, on ARM64 CPUs with half-precision arithmetic: an Exp gives
65,504 at most and 0 below -17, so that a softmax, a logarithm of a sum, or a deviation made of one is wrong
(-4 to 12 dB); Softmax, LogSoftmax and an Exp of what is shifted by the maximum are right. Where a measured
run shows that the exponentials leave the range, they are written so; the last bits differ.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from mnnprep.repair.rule import Match, Rewrite, Rule
from mnnprep.repair.support.building import Builder
from mnnprep.repair.support.editor import Editor
from mnnprep.repair.support.opsets import ONE_AXIS
from mnnprep.repair.support.reading import ModelView, operands, producer, scalar
from mnnprep.repair.support.reductions import Reduction, reduction

if TYPE_CHECKING:
    import onnx_ir as ir

    from mnnprep.repair.support.reading import Operand

LARGE, SMALL = 2.0**13, 2.0**-8  # of the largest exponential


class Exponential(NamedTuple):
    """How to write it: the function, and what the exponentials are of."""

    write: Callable[[Builder, ir.Value], ir.Value]
    of: ir.Value


def _find(view: ModelView) -> Iterator[Match[Exponential]]:
    for node, opset in view.nodes("Div", "Mul", "Log", "ReduceLogSumExp", "Sqrt"):
        found = next((plan for look in _FORMS if (plan := look(node, opset, view)) is not None), None)
        if found is not None:
            yield Match(at=node, opset=opset, found=found)


def _apply(editor: Editor, match: Match[Exponential]) -> bool:
    build = Builder(editor, match.node, match.opset)
    build.replace_only(match.plan.write(build, match.plan.of))
    return True


def _softmax(node: ir.Node, opset: int, view: ModelView) -> Exponential | None:
    """Exponentials over their sum, or times its Reciprocal."""
    pairs = [tuple(node.inputs)] if node.op_type == "Div" else []
    if node.op_type == "Mul":
        inverses = [(above, producer(below, "Reciprocal")) for above, below in operands(node)]
        pairs = [(above, inverse.inputs[0]) for above, inverse in inverses if inverse is not None]
    for above, below in pairs:
        of, total = _exponent(above, view), _sum(below)
        if of is not None and total is not None and total[0] is above and total[2]:
            axis = _last(total[1], of, opset, view)
            if axis is not None:
                return Exponential(functools.partial(_one_operator, name="Softmax", axis=axis), of)
    return None


def _log_of_sum(node: ir.Node, opset: int, view: ModelView) -> Exponential | None:
    """The logarithm of a sum of exponentials."""
    if node.op_type == "ReduceLogSumExp":
        total, of = reduction(node), node.inputs[0]
        if of is None or not _overflows(of, view):
            return None
    else:
        total = _sum(node.inputs[0]) if node.op_type == "Log" else None
        of = _exponent(total[0], view) if total is not None else None
    if total is None or of is None:
        return None
    _, axes, keep = total

    def write(build: Builder, x: ir.Value) -> ir.Value:
        most = build.reduce("ReduceMax", x, axes, keep=True)
        shifted = build.op("Exp", build.op("Sub", x, most))
        result = build.op("Add", build.op("Log", build.reduce("ReduceSum", shifted, axes, keep=True)), most)
        return result if keep else _squeezed(build, result, axes)

    return Exponential(write, of)


def _squeezed(build: Builder, value: ir.Value, axes: tuple[int, ...] | None) -> ir.Value:
    return build.squeeze(value, *axes) if axes is not None else build.op("Squeeze", value)


def _softplus(node: ir.Node, opset: int, view: ModelView) -> Exponential | None:
    """The logarithm of 1 and an exponential: the exponent if it is positive, and that of what is left."""
    added = producer(node.inputs[0], "Add") if node.op_type == "Log" else None
    for value, one in operands(added) if added is not None else ():
        of = _exponent(value, view)
        if of is not None and scalar(one) == 1:
            return Exponential(_written_softplus, of)
    return None


def _written_softplus(build: Builder, x: ir.Value) -> ir.Value:
    rest = build.op("Exp", build.op("Neg", build.op("Abs", x)))
    log = build.op("Log", build.op("Add", rest, build.constant(np.float32(1))))
    return build.op("Add", build.op("Relu", x), log)


def _log_softmax(node: ir.Node, opset: int, view: ModelView) -> Exponential | None:
    """The logarithm of a Softmax."""
    inner = producer(node.inputs[0], "Softmax") if node.op_type == "Log" else None
    if inner is None or inner.inputs[0] is None:
        return None
    axis = inner.attributes.get_int("axis", -1 if opset >= ONE_AXIS else 1)
    write = functools.partial(_one_operator, name="LogSoftmax", axis=axis)
    return Exponential(write, inner.inputs[0])


def _scaled(node: ir.Node, opset: int, view: ModelView) -> Exponential | None:
    """The root of an exponential, or one times a positive constant."""
    if node.op_type == "Sqrt":
        of = _exponent(node.inputs[0], view)
        return Exponential(functools.partial(_changed, op_type="Mul", number=0.5), of) if of else None
    for value, other in operands(node) if node.op_type == "Mul" else ():
        of, factor = _exponent(value, view), scalar(other)
        if of is not None and factor is not None and 0 < factor < math.inf:
            return Exponential(functools.partial(_changed, op_type="Add", number=math.log(factor)), of)
    return None


def _changed(build: Builder, x: ir.Value, op_type: str, number: float) -> ir.Value:
    return build.op("Exp", build.op(op_type, x, build.constant(np.float32(number))))


def _one_operator(build: Builder, x: ir.Value, name: str, axis: int) -> ir.Value:
    return build.op(name, x, axis=axis)


def _exponent(value: Operand, view: ModelView) -> ir.Value | None:
    """What *value* is the exponential of, if half precision does not hold it."""
    node = producer(value, "Exp")
    found = view.magnitude(value)
    if node is None or found is None or not found.largest:
        return None
    return None if SMALL <= found.largest <= LARGE else node.inputs[0]


def _overflows(value: ir.Value, view: ModelView) -> bool:
    """Whether the exponentials of *value* leave the range."""
    found = view.magnitude(value)
    return found is not None and found.largest > math.log(LARGE)


def _sum(value: Operand) -> Reduction | None:
    """What *value* is the sum of."""
    return reduction(producer(value, "ReduceSum"))


def _last(axes: tuple[int, ...] | None, value: ir.Value, opset: int, view: ModelView) -> int | None:
    """The one axis of a sum, if Softmax can go over it at this opset."""
    rank = view.rank(value)
    if axes is None or len(axes) != 1:
        return None
    return axes[0] if opset >= ONE_AXIS or (rank is not None and axes[0] in (-1, rank - 1)) else None


_FORMS = (_softmax, _log_of_sum, _softplus, _log_softmax, _scaled)

RULE = Rule(
    name="unshifted-exponential",
    severity="narrowed",
    target="low",
    operators=frozenset({"Exp", "ReduceLogSumExp", "Softmax"}),
    find=_find,
    rewrite=Rewrite(apply=_apply, exact=False),
    hazard="half precision does not hold the exponential of a number above 11 or below -17",
    remedy="use Softmax or LogSoftmax, or subtract the maximum before the Exp",
)
