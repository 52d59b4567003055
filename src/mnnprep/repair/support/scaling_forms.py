"""How the exponents by which the results of operators are kept follow from those of their inputs."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from fractions import Fraction
from typing import TYPE_CHECKING

from mnnprep.formats.onnx.graph import STANDARD_DOMAINS
from mnnprep.repair.support.building import given, static
from mnnprep.repair.support.reading import ModelView, bodies, scalar, tensor

if TYPE_CHECKING:
    import onnx_ir as ir

LINEAR = frozenset(
    (
        "Identity",
        "Neg",
        "Abs",
        "Relu",
        "LeakyRelu",
        "PRelu",
        "Transpose",
        "Reshape",
        "Flatten",
        "Squeeze",
        "Unsqueeze",
        "Slice",
        "Gather",
        "GatherND",
        "GatherElements",
        "Expand",
        "Tile",
        "Dropout",
        "ReduceSum",
        "ReduceMean",
        "ReduceMax",
        "ReduceMin",
        "ReduceL1",
        "ReduceL2",
        "MaxPool",
        "AveragePool",
        "GlobalAveragePool",
        "GlobalMaxPool",
        "CumSum",
        "DepthToSpace",
        "SpaceToDepth",
        "Split",
        "Conv",
        "ConvTranspose",
        "Gemm",
        "Resize",
    )
)
WEIGHTED = frozenset({"Conv", "ConvTranspose", "Gemm"})
ALL_JOINT = ("Add", "Sub", "Sum", "Max", "Min", "Mean", "Concat", "Equal", "Greater", "Less")
JOINT: dict[str, tuple[int, ...] | None] = {
    **dict.fromkeys(ALL_JOINT),
    "Where": (1, 2),
    "Clip": (0, 1, 2),
    "Pad": (0, 2),
}
COMPARING = frozenset({"Equal", "Greater", "Less"})
NORMS = frozenset({"LayerNormalization", "InstanceNormalization", "BatchNormalization", "LpNormalization"})
ANY = frozenset({"Shape", "Size", "ArgMax", "ArgMin", "Sign"})
UNKNOWN_TERMS = 4096  # of a sum over an open size


@dataclass(frozen=True)
class Form:
    """How the exponent of a node's result follows from those of its inputs.

    It is the sum of the inputs' exponents times ``factors``; or the inputs that are named there have one
    exponent (``joint``), which is the result's. ``fixed``: the result's exponent is 0.
    """

    factors: dict[int, Fraction]
    joint: bool = False
    fixed: bool = False


def terms(node: ir.Node, view: ModelView) -> int:
    """How many squares a norm adds up."""
    sizes = static(view.dims(node.inputs[0]))
    if sizes is None:
        return UNKNOWN_TERMS
    if node.op_type == "LpNormalization":
        return sizes[node.attributes.get_int("axis", -1)]
    kept = static(view.dims(node.outputs[0]))
    return max(1, math.prod(sizes) // max(1, math.prod(kept))) if kept is not None else UNKNOWN_TERMS


def form_of(node: ir.Node, view: ModelView) -> Form | None:
    """The form of *node*; None if it takes and gives values as they are."""
    one = Fraction(1)
    if (
        node.domain not in STANDARD_DOMAINS
        or not node.inputs
        or any(bodies(attribute) for attribute in node.attributes.values())
    ):
        return None
    name = node.op_type
    if name in ANY:
        return Form({}, fixed=True)
    floats = [view.dtype(value) for value in node.inputs if value is not None]
    if name in JOINT:
        chosen = JOINT[name]
        places = range(len(node.inputs)) if chosen is None else chosen
        known = all(view.dtype(given(node, place)) in ("FLOAT", "") for place in places if given(node, place))
        plain = name != "Pad" or (node.attributes.get_string("mode", "constant") == "constant")
        return Form(dict.fromkeys(places, one), joint=True) if known and plain else None
    if floats[0] != "FLOAT":
        return None
    if name in LINEAR:
        if name not in WEIGHTED:
            return Form({0: one})
        stored = all(tensor(value) is not None for value in list(node.inputs)[1:] if value is not None)
        return Form({0: one, 1: one}) if stored else None
    if name in NORMS:
        return _norm(node)
    return next((made for make in _PRODUCTS for made in make(node)), None)


def _norm(node: ir.Node) -> Form | None:
    if node.op_type == "BatchNormalization" and (
        len([o for o in node.outputs if o.name]) > 1
        or any(tensor(value) is None for value in list(node.inputs)[1:])
    ):
        return None
    return Form({0: Fraction(1)}, fixed=True)


def _product(node: ir.Node) -> Iterator[Form]:
    if node.op_type in ("Mul", "MatMul"):
        yield Form({0: Fraction(1), 1: Fraction(1)})
    elif node.op_type == "Div":
        yield Form({0: Fraction(1), 1: Fraction(-1)})


def _power(node: ir.Node) -> Iterator[Form]:
    fixed = {"ReduceSumSquare": Fraction(2), "Sqrt": Fraction(1, 2), "Reciprocal": Fraction(-1)}
    if node.op_type in fixed:
        yield Form({0: fixed[node.op_type]})
    elif node.op_type == "Log":
        yield Form({0: Fraction(1)}, fixed=True)
    elif node.op_type == "Pow" and (power := scalar(node.inputs[1])) is not None:
        factor = Fraction(power).limit_denominator(16)
        if factor and math.isclose(float(factor), power, rel_tol=1e-7):
            yield Form({0: factor})


_PRODUCTS: tuple[Callable[[ir.Node], Iterator[Form]], ...] = (_product, _power)
