"""Einsum in forms that MNN gets wrong.

A repeated subscript, a number as the result of two operands, or more than two operands.

Measured with MNN 3.6.1: ``ii->i`` keeps both axes; ``i,i->`` and three operands are refused. Transposes, sums
and batched products are right.

A diagonal is taken by Where and ReduceSum, an inner product by Mul and ReduceSum, and operands are contracted
two by two from the left. A diagonal has the same bits, a product is numerically equal.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np

from mnnprep.repair.rule import Match, Rewrite, Rule
from mnnprep.repair.support.building import FLOATS, Builder, static
from mnnprep.repair.support.editor import Editor
from mnnprep.repair.support.opsets import SINCE
from mnnprep.repair.support.reading import ModelView

if TYPE_CHECKING:
    from mnnprep.repair.support.reading import Operand


def _find(view: ModelView) -> Iterator[Match[str]]:
    for node, opset in view.nodes("Einsum"):
        equation = node.attributes.get_string("equation", "").replace(" ", "")
        left, _, right = equation.replace("...", "").partition("->")
        terms = left.split(",")
        if "->" not in equation:
            right = "".join(sorted(c for c in set(left) if c.isalpha() and left.count(c) == 1))
        repeated = any(len(set(term)) < len(term) for term in terms)
        several = len(terms) > 2
        if not repeated and not several and not (len(terms) > 1 and not right):
            continue
        able = ("->" in equation or "." not in equation) and all(
            map(_able, equation.partition("->")[0].split(","))
        )
        able = (
            able
            and not (several and "." in equation)
            and opset >= SINCE["Where"]
            and all(view.dtype(value) in FLOATS and static(view.dims(value)) for value in node.inputs)
        )
        equation = equation if "->" in equation else f"{left}->{right}"
        yield Match(
            at=node,
            detail="a repeated subscript"
            if repeated
            else "several operands"
            if several
            else "an inner product",
            opset=opset,
            found=equation,
            repairable=able,
        )


def _able(term: str) -> bool:
    """Whether the letters stand behind the ellipsis, and none is there three times."""
    letters = term.removeprefix("...")
    return "." not in letters and all(letters.count(letter) < 3 for letter in letters)


def _apply(editor: Editor, match: Match[str]) -> bool:
    node, opset, equation = match.node, match.opset, match.plan
    build = Builder(editor, node, opset)
    left, _, right = equation.partition("->")
    pairs = [
        _without_diagonals(build, value, term)
        for value, term in zip(node.inputs, left.split(","), strict=True)
    ]
    values, terms = [value for value, _ in pairs], [term for _, term in pairs]
    while len(terms) > 2:
        kept = "".join(
            letter for letter in dict.fromkeys(terms[0] + terms[1]) if letter in right + "".join(terms[2:])
        )
        values[:2] = [build.op("Einsum", *values[:2], equation=f"{terms[0]},{terms[1]}->{kept}")]
        terms[:2] = [kept]
    if len(terms) == 2 and terms[0] == terms[1] and not right:
        build.replace(build.reduce("ReduceSum", build.op("Mul", *values), None, keep=False))
    elif terms == [right]:
        build.replace(values[0])
    else:
        build.replace(build.op("Einsum", *values, equation=f"{','.join(terms)}->{right}"))
    return True


def _without_diagonals(build: Builder, value: Operand, term: str) -> tuple[Any, str]:
    """*value* and its subscripts with the diagonal of each pair of axes of the same letter."""
    view = build.editor.view
    sizes, dtype = list(static(view.dims(value)) or ()), view.dtype(value)
    letters = term.removeprefix("...")
    for letter in sorted({letter for letter in letters if letters.count(letter) == 2}):
        lead = len(sizes) - len(letters)
        first, second = lead + letters.index(letter), lead + letters.rindex(letter)
        eye = np.eye(sizes[first], dtype=bool)
        eye = eye.reshape([size if axis in (first, second) else 1 for axis, size in enumerate(sizes)])
        value = build.reduce(
            "ReduceSum",
            build.op("Where", build.constant(eye), value, build.constant(0, dtype)),
            (second,),
            keep=False,
        )
        del sizes[second]
        letters = letters[: second - lead] + letters[second - lead + 1 :]
    return value, term[: len(term) - len(term.removeprefix("..."))] + letters


RULE = Rule(
    name="einsum-forms",
    severity="wrong",
    operators=frozenset({"Einsum"}),
    find=_find,
    rewrite=Rewrite(apply=_apply, exact=False),
    hazard="MNN's Einsum does not take a diagonal, and refuses an inner product",
    remedy="write it with MatMul, Mul and ReduceSum",
)
