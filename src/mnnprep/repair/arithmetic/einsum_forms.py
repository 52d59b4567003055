"""Einsum in forms that MNN gets wrong.

Measured with MNN 3.6.1, over 4,000 equations of two operands with up to four axes:

- ``ii->i`` keeps both axes, and more than two operands are refused.
- A subscript of one operand that the result lacks is not summed: no outputs, or wrong ones. A number as the
  result crashes the converter.
- ``bnd,bng->bgd`` comes out with its last two axes exchanged, and a result that begins as the first operand
  does gives no outputs unless both operands begin with the batch axes (``bnid,bijd->bnij``).

All others are right, also with open sizes and axes of size 1.

A diagonal is taken by Where and ReduceSum, operands are contracted two by two from the left, and what MNN
gets wrong of two is a ReduceSum of each operand's own subscripts and one MatMul, or Mul and ReduceSum for a
number. A diagonal has the same bits, a product is numerically equal.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from mnnprep.repair.rule import Match, Rewrite, Rule
from mnnprep.repair.support.building import FLOATS, Builder, fed, static
from mnnprep.repair.support.editor import Editor
from mnnprep.repair.support.opsets import SINCE
from mnnprep.repair.support.products import Equation, contracted
from mnnprep.repair.support.reading import ModelView

if TYPE_CHECKING:
    import onnx_ir as ir

    from mnnprep.repair.support.reading import Operand


@dataclass(frozen=True)
class Form:
    """An equation, and what of it MNN gets wrong."""

    equation: Equation
    fault: str


def _find(view: ModelView) -> Iterator[Match[Form | None]]:
    for node, opset in view.nodes("Einsum"):
        text = node.attributes.get_string("equation", "").replace(" ", "")
        written = Equation.parse(text)
        fault = _fault(written)
        if not fault:
            continue
        equation = written.without_ellipsis([_rank(view, value) for value in node.inputs])
        able = (
            equation is not None
            and opset >= SINCE["Where"]
            and all(view.dtype(value) in FLOATS for value in node.inputs)
            and all(
                _diagonals_known(view, value, term)
                for value, term in zip(node.inputs, equation.terms, strict=True)
            )
        )
        found = Form(equation, fault) if able and equation is not None else None
        yield Match(at=node, detail=fault, opset=opset, found=found, repairable=found is not None)


def _fault(equation: Equation) -> str:
    """What MNN gets wrong of *equation*; empty if nothing."""
    if any(len(set(term)) < len(term.replace("...", ".")) for term in equation.terms):
        return "a repeated subscript"
    if len(equation.terms) > 2:
        return "several operands"
    if len(equation.terms) == 1:
        return ""
    if not equation.result:
        return "an inner product"
    if equation.alone(0) or equation.alone(1):
        return "a subscript that is in one operand alone and not in the result"
    return "an order of axes" if _misordered(equation) else ""


def _misordered(equation: Equation) -> bool:
    """Whether MNN leaves out a transpose that *equation* needs."""
    left, right = (term.replace("...", ".") for term in equation.terms)
    result = equation.result.replace("...", ".")
    summed = [letter for letter in left if letter in right and letter not in result]
    batch = [letter for letter in result if letter in left and letter in right]
    if not summed or not batch or not left[0] == right[0] == result[0]:
        return False
    kept = "".join(letter for letter in left if letter not in summed)
    if result == kept + "".join(letter for letter in right if letter not in left):
        return len(batch) > 1 and not all(set(term[: len(batch)]) == set(batch) for term in (left, right))
    other = "".join(letter for letter in right if letter not in summed)
    return len(left) == len(right) == 3 and result == other + kept[1:]


def _rank(view: ModelView, value: Operand) -> int | None:
    dims = view.dims(value)
    return None if dims is None else len(dims)


def _diagonals_known(view: ModelView, value: Operand, term: str) -> bool:
    """Whether the diagonals of *value* can be taken: a subscript twice, of known sizes, never thrice."""
    return all(term.count(letter) < 2 for letter in term) or (
        static(view.dims(value)) is not None and all(term.count(letter) < 3 for letter in term)
    )


def _apply(editor: Editor, match: Match[Form | None]) -> bool:
    node, opset, form = match.node, match.opset, match.plan
    if form is None:
        return False
    build = Builder(editor, node, opset)
    pairs = [
        _without_diagonals(build, fed(node, index), term) for index, term in enumerate(form.equation.terms)
    ]
    values, terms = [value for value, _ in pairs], [term for _, term in pairs]
    result = form.equation.result
    while len(terms) > 1:
        later = "".join(terms[2:])
        pair = terms[0] + terms[1]
        kept = "".join(letter for letter in dict.fromkeys(pair) if letter in result + later)
        kept = kept if later else result
        values[:2] = [contracted(build, values[:2], Equation((terms[0], terms[1]), kept))]
        terms[:2] = [kept]
    if terms == [result]:
        build.replace(values[0])
    else:
        build.replace(build.op("Einsum", *values, equation=f"{terms[0]}->{result}"))
    return True


def _without_diagonals(build: Builder, value: ir.Value, term: str) -> tuple[ir.Value, str]:
    """*value* and its subscripts with the diagonal of each pair of axes of the same letter."""
    repeated = sorted({letter for letter in term if term.count(letter) == 2})
    if not repeated:
        return value, term
    view = build.editor.view
    sizes, dtype = list(static(view.dims(value)) or ()), view.dtype(value)
    for letter in repeated:
        first, second = term.index(letter), term.rindex(letter)
        eye = np.eye(sizes[first], dtype=bool)
        eye = eye.reshape([size if axis in (first, second) else 1 for axis, size in enumerate(sizes)])
        chosen = build.op("Where", build.constant(eye), value, build.constant(0, dtype))
        value = build.reduce("ReduceSum", chosen, (second,), keep=False)
        del sizes[second]
        term = term[:second] + term[second + 1 :]
    return value, term


RULE = Rule(
    name="einsum-forms",
    severity="wrong",
    operators=frozenset({"Einsum"}),
    find=_find,
    rewrite=Rewrite(apply=_apply, exact=False),
    hazard="MNN's Einsum does not take diagonals, sums of one operand, or every order of the axes",
    remedy="write it with MatMul, Mul and ReduceSum",
)
