"""The nodes of an ONNX model that half precision breaks in MNN, from what an instrumented run measured.

Two kinds.  An operator that MNN itself computes wrongly at precision ``low`` is found by its type and by the
numbers it meets.  A node that breaks by rounding alone is found in the run that rounds as MNN does
(`as_mnn`): its result falls below LEAST_DB though its operands are right, and the fault goes on to an output.
What saturates on its way (a tanh of infinity, a mask) is no finding.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from mnnprep.formats.onnx import graph as graphs
from mnnprep.formats.onnx.outline import taken
from mnnprep.formats.onnx.sums import PRODUCTS
from mnnprep.model.half import LIMITS
from mnnprep.model.magnitudes import Magnitude, Measured, Moved

if TYPE_CHECKING:
    from onnx import GraphProto, NodeProto

HALF = LIMITS["float16"]
LEAST_DB = 30.0
# Measured with MNN 3.6.1: a mean over 48 x 48 has 36 dB, one over 56 x 56 has 29, one over 128 x 128 has 2.
POOLED = 3000
# Convolutions by Winograd's algorithm overflow inside: 1,000 at their input is right and 1,500 is not always,
# 10,000 at their result is right and 20,000 is not always.
WINOGRAD_INPUT = 1200.0
WINOGRAD_RESULT = 18_000.0
WINOGRAD_KERNELS = (3, 4, 5)
# Sums of products: magnitudes over the largest result, in units of what numbers of random signs give.
CANCELLING = 12.0
LEAST_TERMS = 64
RANDOM_SIGNS = 0.16  # mean |ab| times terms, over 4 standard deviations of their sum: 0.16 sqrt(terms)
VANISHING = frozenset({"Div", "Log", "Reciprocal", "Pow", "Sqrt"})
ARGUMENTS = frozenset({"Sin", "Cos", "Tan"})
ADDITIVE = frozenset({"Add", "Sub", "Sum", "ReduceSum", "ReduceMean", "MatMul", "Gemm", "Conv"})


@dataclass(frozen=True)
class Hazard:
    """One kind of finding: its id, MNN's behaviour, the remedy."""

    name: str
    hazard: str
    remedy: str


OVERFLOW = Hazard(
    "half-overflow",
    "the result is larger than 65,504, the largest number of float16",
    "scale the numbers before they are squared, multiplied or added, and back afterwards; before an Exp,"
    " subtract the maximum",
)
CONSTANT = Hazard(
    "half-constant",
    "float16 can't hold this constant",
    "take a constant between 6.1e-5 and 65,504, and scale by several smaller factors",
)
UNDERFLOW = Hazard(
    "half-underflow",
    "the result is so small that float16 keeps few bits of it, or none",
    "scale the numbers up before, or work with their logarithms",
)
VANISHED = Hazard(
    "half-vanished",
    "a number that keeps this operator from 0 vanishes in float16",
    "use an epsilon of 1e-4 or more, and add it where the numbers are small",
)
CANCELLATION = Hazard(
    "half-cancellation",
    "large numbers cancel, and what float16 left out of them is as large as the result",
    "subtract the offset before the numbers become large, or compute the difference itself",
)
ARGUMENT = Hazard(
    "half-argument",
    "the argument is so large that float16 keeps too little of its phase",
    "reduce the argument before, or store the results as a table of constants",
)
PRECISION = Hazard(
    "half-precision",
    "float16 rounds too much of the result away",
    "keep the numbers near 1, and differences apart from large offsets",
)
INPUT = Hazard(
    "half-input",
    "float16 can't hold the values of this input",
    "scale the input before it is given to the model",
)
POOL = Hazard(
    "half-pool",
    "MNN adds up a global average in float16, which stops growing",
    "use ReduceMean over the two axes, which MNN adds up in float32, or pool in two steps",
)
GRID = Hazard(
    "half-grid-sample",
    "MNN computes the places of GridSample in float16, and often takes other pixels",
    "run the model at precision normal or high, or sample outside it",
)
WINOGRAD = Hazard(
    "half-winograd",
    "MNN computes this convolution by Winograd's algorithm, which overflows inside in float16",
    "scale the input to less than 1,000 and the result to less than 10,000, and scale back afterwards",
)
LRN = Hazard(
    "half-lrn",
    "MNN squares and adds up the input of LRN in float16",
    "scale the input down, and alpha up by the square of that",
)
SUM = Hazard(
    "half-sum",
    "MNN adds up products in float16, whose partial sums are far larger than the result",
    "subtract the mean from the input or from the weights first, so that partial sums stay small",
)


@dataclass(frozen=True)
class Place:
    """A finding: what, where (the node, or the name of a graph input), and the numbers."""

    hazard: Hazard
    node: NodeProto | None
    name: str
    detail: str


def find(graph: GraphProto, found: Measured) -> list[Place]:
    """The findings, in the order of the graph."""
    return [*_inputs(graph, found), *_nodes(graph, found)]


def _nodes(graph: GraphProto, found: Measured) -> Iterator[Place]:
    stored = {t.name for t in graph.initializer} | {
        n.output[0] for n in graph.node if n.op_type == "Constant" and n.output
    }
    shapes = {t.name: tuple(t.dims) for t in graph.initializer}
    harmful = _harmful(graph, found)
    for node in graph.node:
        if node.domain not in graphs.STANDARD_DOMAINS:
            known = None
        else:
            known = _operator(node, found, shapes.get(node.input[1] if len(node.input) > 1 else "", ()))
        if known is None and harmful.intersection(node.output):
            sources = [n for n in taken(node) if n and n not in stored]
            if not any(_broken(found.moved.get(n)) for n in sources):
                known = _rounding(node, found, stored)
        if known is not None:
            yield Place(known[0], node, graphs.label(node), known[1])


def _inputs(graph: GraphProto, found: Measured) -> Iterator[Place]:
    harmful = _harmful(graph, found)
    for value in graph.input:
        moved, size = found.moved.get(value.name), found.values.get(value.name)
        if value.name in harmful and moved is not None and size is not None and _broken(moved):
            yield Place(
                INPUT, None, value.name, f"up to {size.largest:.3g}, float16 holds {HALF.largest:,.0f}"
            )


def _broken(moved: Moved | None) -> bool:
    if moved is None:
        return False
    return moved.infinite > 0 or (moved.sqnr_db is not None and moved.sqnr_db < LEAST_DB)


def _harmful(graph: GraphProto, found: Measured) -> set[str]:
    """The values that are broken, and from which a broken value leads to the next up to a graph output."""
    harmful = {o.name for o in graph.output if _broken(found.moved.get(o.name))}
    for node in reversed(graph.node):
        if harmful.intersection(node.output):
            harmful.update(n for n in taken(node) if n and _broken(found.moved.get(n)))
    return harmful


def _operator(node: NodeProto, found: Measured, weights: Sequence[int]) -> tuple[Hazard, str] | None:
    """What MNN itself gets wrong of *node*; *weights* is the shape of its second operand, if it is stored."""
    size = found.values.get(node.input[0]) if node.input else None
    largest = size.largest if size is not None else 0.0
    behind = found.sums.get(node.output[0]) if node.output else None
    if node.op_type == "GridSample":
        return GRID, ""
    if node.op_type == "GlobalAveragePool" and behind is not None and behind.terms >= POOLED:
        return POOL, f"{behind.terms:,} elements are averaged, right up to about 2,300"
    if node.op_type == "LRN":
        squares = largest**2 * next((a.i for a in node.attribute if a.name == "size"), 1)
        if squares > HALF.largest:
            return LRN, f"squares of up to {squares:.3g}, float16 holds {HALF.largest:,.0f}"
    if _by_winograd(node, weights):
        result = found.values[node.output[0]].largest
        if largest > WINOGRAD_INPUT:
            return WINOGRAD, f"its input goes up to {largest:.3g}, right up to about 1,000"
        if WINOGRAD_RESULT < result < HALF.overflow:
            return WINOGRAD, f"its result goes up to {result:.3g}, right up to about 10,000"
    if node.op_type in PRODUCTS and behind is not None:
        result = found.values[node.output[0]].largest
        return _cancelling(behind.terms, behind.magnitudes, result)
    return None


def _by_winograd(node: NodeProto, weights: Sequence[int]) -> bool:
    ints = {a.name: list(a.ints) for a in node.attribute if a.ints}
    group = next((a.i for a in node.attribute if a.name == "group"), 1)
    kernel = ints.get("kernel_shape") or list(weights[2:])
    return (
        node.op_type == "Conv"
        and group == 1
        and len(kernel) == 2
        and kernel[0] == kernel[1]
        and kernel[0] in WINOGRAD_KERNELS
        and set(ints.get("strides", [1])) == {1}
        and set(ints.get("dilations", [1])) == {1}
    )


def _cancelling(terms: int, magnitudes: float, result: float) -> tuple[Hazard, str] | None:
    if terms < LEAST_TERMS or not 0 < result < HALF.overflow:
        return None
    if magnitudes / result < CANCELLING * RANDOM_SIGNS * math.sqrt(terms):
        return None
    return SUM, f"{terms:,} products of {magnitudes:.3g} in all make at most {result:.3g}"


def _rounding(node: NodeProto, found: Measured, stored: set[str]) -> tuple[Hazard, str]:
    """Why rounding breaks the result of *node*."""
    names = [n for n in taken(node) if n]
    result = found.values.get(next(iter(node.output), ""), Magnitude(0.0, 0.0))
    moved = found.moved.get(next(iter(node.output), ""), Moved(None, 0, 0))
    for name in (n for n in names if n in stored):
        size, move = found.values.get(name), found.moved.get(name)
        if size is not None and size.largest >= HALF.overflow:
            return CONSTANT, f"{size.largest:.3g} in {name}, float16 holds {HALF.largest:,.0f}"
        if size is not None and size.largest and move is not None and _broken(move):
            return CONSTANT, f"{size.largest:.3g} in {name}, float16 holds {HALF.normal:.2g} and more"
    lost = [n for n in names if (m := found.moved.get(n)) is not None and m.vanished]
    if node.op_type in VANISHING and lost:
        least = found.values[lost[0]].least
        return VANISHED, f"{least:.3g} in {lost[0]}, float16 holds {HALF.least:.1g} and more"
    if result.largest >= HALF.overflow:
        return OVERFLOW, f"up to {result.largest:.3g}, float16 holds {HALF.largest:,.0f}"
    behind = found.sums.get(next(iter(node.output), ""))
    divided = node.op_type == "LpNormalization" and behind is not None and behind.magnitudes >= HALF.overflow
    if moved.infinite or divided:
        inner = _inner(node, found, names)
        return OVERFLOW, f"{inner} inside, float16 holds {HALF.largest:,.0f}"
    if 0 < result.largest < HALF.normal * 16:
        return UNDERFLOW, f"at most {result.largest:.3g}, float16 is at its best from {HALF.normal:.2g} on"
    largest = max((found.values[n].largest for n in names if n in found.values), default=0.0)
    if node.op_type in ARGUMENTS:
        return ARGUMENT, f"of up to {largest:.3g}"
    if node.op_type in ADDITIVE and largest > 4 * result.largest:
        return CANCELLATION, f"numbers of up to {largest:.3g} make at most {result.largest:.3g}"
    return PRECISION, f"{_decibels(moved)}, numbers of up to {largest:.3g} make at most {result.largest:.3g}"


def _inner(node: NodeProto, found: Measured, names: Sequence[str]) -> str:
    """What gets too large within an operator that MNN makes of simpler ones."""
    largest = max((found.values[n].largest for n in names if n in found.values), default=0.0)
    behind = found.sums.get(node.output[0])
    if behind is not None:
        return f"{behind.terms:,} terms of {behind.magnitudes:.3g} in all"
    return f"operands of up to {largest:.3g} (e to that power, or its square)"


def _decibels(moved: Moved) -> str:
    if moved.sqnr_db is None:
        return "no error"
    return f"{moved.sqnr_db:.0f} dB" if moved.sqnr_db > -1e3 else "nothing is left"
