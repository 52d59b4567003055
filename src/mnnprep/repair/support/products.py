"""An Einsum of two operands as one MatMul, for any sizes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from mnnprep.repair.support.building import Builder

if TYPE_CHECKING:
    import onnx_ir as ir

ELLIPSIS = "..."
# Subscripts for the axes of an ellipsis; an equation's own are letters.
LEADING = "0123456789"


@dataclass(frozen=True)
class Equation:
    """The subscripts of the operands and of the result of an Einsum."""

    terms: tuple[str, ...]
    result: str

    @classmethod
    def parse(cls, text: str) -> Equation:
        """The equation of *text*; a result that is left out is that of ONNX's Einsum.

        That is the ellipsis and the subscripts that occur once, in the order of the alphabet.
        """
        left, arrow, right = text.replace(" ", "").partition("->")
        if not arrow:
            letters = left.replace(ELLIPSIS, "").replace(",", "")
            once = sorted(letter for letter in set(letters) if letters.count(letter) == 1)
            right = (ELLIPSIS if ELLIPSIS in left else "") + "".join(once)
        return cls(tuple(left.split(",")), right)

    def alone(self, index: int) -> str:
        """The subscripts of the operand *index* that neither another operand nor the result has."""
        others = "".join(term for place, term in enumerate(self.terms) if place != index)
        return "".join(letter for letter in self.terms[index] if letter not in others + self.result)

    def without_ellipsis(self, ranks: Sequence[int | None]) -> Equation | None:
        """The equation with a subscript for each axis of an ellipsis, of operands of these *ranks*.

        None if a rank is needed and not known, or the result lacks the ellipsis of an operand.
        """
        if not any(ELLIPSIS in term for term in self.terms):
            return None if "." in "".join(self.terms) else self
        if ELLIPSIS not in self.result:
            return None
        counts = []
        for term, rank in zip(self.terms, ranks, strict=True):
            if ELLIPSIS in term and rank is None:
                return None
            counts.append(rank - len(term) + len(ELLIPSIS) if ELLIPSIS in term and rank is not None else 0)
        most = max(counts)
        if min(counts) < 0 or most > len(LEADING):
            return None
        axes = LEADING[:most]
        terms = (
            term.replace(ELLIPSIS, axes[most - count :])
            for term, count in zip(self.terms, counts, strict=True)
        )
        return Equation(tuple(terms), self.result.replace(ELLIPSIS, axes))


def contracted(build: Builder, values: Sequence[ir.Value], equation: Equation) -> ir.Value:
    """The product of two *values* by *equation*, in which no operand has a subscript twice.

    Batch axes stay apart, so that MatMul broadcasts those of an ellipsis; the others are merged where there
    are several.
    """
    operands = [_summed(build, value, equation, index) for index, value in enumerate(values)]
    (left, first), (right, second) = operands
    if not equation.result:
        order = [second.index(letter) for letter in first]
        return build.reduce(
            "ReduceSum", build.op("Mul", left, build.transpose(right, *order)), None, keep=False
        )
    batch = [letter for letter in equation.result if letter in first and letter in second]
    inner = [letter for letter in first if letter in second and letter not in batch]
    rows = [letter for letter in equation.result if letter in first and letter not in batch]
    columns = [letter for letter in equation.result if letter in second and letter not in batch]
    left = build.transpose(left, *(first.index(letter) for letter in [*batch, *rows, *inner]))
    right = build.transpose(right, *(second.index(letter) for letter in [*batch, *inner, *columns]))
    product = build.op(
        "MatMul",
        _merged(build, left, len(batch), (len(rows), len(inner))),
        _merged(build, right, len(batch), (len(inner), len(columns))),
    )
    apart = _apart(build, product, (left, right), len(batch), (len(rows), len(columns)), len(inner))
    found = [*batch, *rows, *columns]
    return build.transpose(apart, *(found.index(letter) for letter in equation.result))


def _summed(build: Builder, value: ir.Value, equation: Equation, index: int) -> tuple[ir.Value, str]:
    """The operand *index* with what it alone has summed, and its subscripts."""
    term, alone = equation.terms[index], equation.alone(index)
    if not alone:
        return value, term
    axes = tuple(term.index(letter) for letter in alone)
    kept = "".join(letter for letter in term if letter not in alone)
    return build.reduce("ReduceSum", value, axes, keep=False), kept


def _merged(build: Builder, value: ir.Value, batch: int, groups: tuple[int, int]) -> ir.Value:
    """*value* with each of two groups of axes behind the *batch* made one axis: 1 where a group is empty."""
    if groups == (1, 1):
        return value
    if max(groups) == 1:
        at = iter(range(batch, batch + 2))
        missing = [axis for axis, count in zip(at, groups, strict=True) if not count]
        return build.unsqueeze(value, *missing)
    sizes = [] if not batch else [build.ints(*[0] * batch)]
    start = batch
    for count in groups:
        sizes.append(build.ints(1) if not count else _extent(build, value, start, count))
        start += count
    return build.op("Reshape", value, build.op("Concat", *sizes, axis=0))


def _apart(
    build: Builder,
    product: ir.Value,
    operands: tuple[ir.Value, ir.Value],
    batch: int,
    groups: tuple[int, int],
    inner: int,
) -> ir.Value:
    """*product* with its last two axes as the *groups* of axes that the *operands* have."""
    if groups == (1, 1):
        return product
    if max(groups) == 1:
        return build.squeeze(product, *(batch + place for place, count in enumerate(groups) if not count))
    sizes = [] if not batch else [build.ints(*[0] * batch)]
    for operand, count, start in zip(operands, groups, (batch, batch + inner), strict=True):
        if count:
            sizes.append(build.slice(build.op("Shape", operand), 0, start, start + count))
    return build.op("Reshape", product, build.op("Concat", *sizes, axis=0))


def _extent(build: Builder, value: ir.Value, start: int, count: int) -> ir.Value:
    """The number of elements of *count* axes of *value* from *start*, as one int64."""
    sizes = build.slice(build.op("Shape", value), 0, start, start + count)
    return sizes if count == 1 else build.reduce("ReduceProd", sizes, (0,), keep=True)
