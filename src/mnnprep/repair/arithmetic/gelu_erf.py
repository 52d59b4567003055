"""GELU written with Erf, in the order that MNN replaces by an approximation.

Measured with MNN 3.6.1: ``x * (1 + erf(x / sqrt 2)) * 0.5`` becomes MNN's own GELU, off by up to 4.7e-4.
``(x * 0.5) * (1 + erf(x / sqrt 2))`` is left as it is: 4.8e-7.

Halving a binary floating-point number is exact, so the two orders give the same bits; but if ``x``
is subnormal the last bit may be lost, and where ``2 x`` overflows the new order is right and the old one is
not.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, NamedTuple

from mnnprep.repair.rule import Match, Rewrite, Rule
from mnnprep.repair.support.editor import Editor
from mnnprep.repair.support.reading import ModelView, operands, producer, scalar

if TYPE_CHECKING:
    import onnx_ir as ir

    from mnnprep.repair.support.reading import Operand

NAME = "gelu-erf"
SQRT2_ERROR = 1e-3  # relative: as float16 writes it


class Gelu(NamedTuple):
    """``x``, ``1 + erf(x / sqrt 2)``, the constant that halves, and the product of the first two."""

    x: Operand
    raised: Operand
    half: Operand
    product: Operand


def _find(view: ModelView) -> list[Match[Gelu]]:
    return [Match(at=last, found=gelu) for last, _ in view.nodes("Mul", "Div") if (gelu := _gelu(last))]


def _apply(editor: Editor, match: Match[Gelu]) -> bool:
    last = match.node
    x, raised, half, product = match.plan
    first = editor.add(last, last.op_type, x, half)
    last.op_type = "Mul"
    last.replace_input_with(0, first)
    last.replace_input_with(1, raised)
    editor.discard(product)
    return True


def _gelu(last: ir.Node) -> Gelu | None:
    """The GELU that ends in *last*."""
    halvings = operands(last) if last.op_type == "Mul" else operands(last)[:1]
    for product, half in halvings:
        outer = producer(product, "Mul")
        if outer is None or scalar(half) != (0.5 if last.op_type == "Mul" else 2.0):
            continue
        for x, raised in operands(outer):
            add = producer(raised, "Add")
            for erf, one in operands(add) if add is not None else ():
                inner = producer(erf, "Erf")
                if inner is not None and scalar(one) == 1.0 and _is_scaled(inner.inputs[0], x):
                    return Gelu(x, raised, half, product)
    return None


def _is_scaled(value: Operand, x: Operand) -> bool:
    """Whether *value* is ``x / sqrt 2``."""
    node = producer(value, "Div", "Mul")
    if node is None:
        return False
    expected = math.sqrt(2.0) if node.op_type == "Div" else math.sqrt(0.5)
    pairs = operands(node)[:1] if node.op_type == "Div" else operands(node)
    return any(
        left is x and (c := scalar(right)) is not None and math.isclose(c, expected, rel_tol=SQRT2_ERROR)
        for left, right in pairs
    )


RULE = Rule(
    name=NAME,
    hazard="MNN replaces x * (1 + erf(x / sqrt 2)) * 0.5 by an approximation that is off by up to 4.7e-4",
    severity="wrong",
    operators=frozenset({"Erf"}),
    find=_find,
    rewrite=Rewrite(apply=_apply, exact=True),
    remedy="halve x first: (x * 0.5) * (1 + erf(x / sqrt 2))",
)
