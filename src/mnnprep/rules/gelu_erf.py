"""GELU written with Erf, in the order that MNN replaces by an approximation.

Measured with MNN 3.6.1: ``x * (1 + erf(x / sqrt 2)) * 0.5`` becomes MNN's own GELU, off by up to 4.7e-4.
``(x * 0.5) * (1 + erf(x / sqrt 2))`` is left as it is: 4.8e-7.

Halving a binary floating-point number is exact, so the two orders give the same bits; but where ``x``
is subnormal the last bit may be lost, and where ``2 x`` overflows the new order is right and the old one is not.
"""

from __future__ import annotations

import math
from typing import Any

from mnnprep.rules.rewrite import Editor, label, nodes, operands, producer, scalar
from mnnprep.rules.rule import Rule

NAME = "gelu-erf"
SQRT2_ERROR = 1e-3  # relative: as float16 writes it


def apply(model: Any) -> list[str]:
    found = [(last, *match) for op in ("Mul", "Div") for last, _ in nodes(model, op) if (match := _match(last))]
    if not found:
        return []
    editor = Editor(model, NAME)
    rewrote = []
    for last, x, raised, half, product in found:
        first = editor.add(last, last.op_type, x, half)
        last.op_type = "Mul"
        last.replace_input_with(0, first)
        last.replace_input_with(1, raised)
        editor.discard(product)
        rewrote.append(label(last))
    return rewrote


def _match(last: Any) -> tuple[Any, Any, Any, Any] | None:
    """``x``, ``1 + erf(x / sqrt 2)``, the constant that halves, and their product, of the GELU that ends in *last*."""
    halvings = operands(last) if last.op_type == "Mul" else (tuple(last.inputs),)
    for product, half in halvings:
        outer = producer(product, "Mul")
        if outer is None or scalar(half) != (0.5 if last.op_type == "Mul" else 2.0):
            continue
        for x, raised in operands(outer):
            add = producer(raised, "Add")
            for erf, one in operands(add) if add is not None else ():
                inner = producer(erf, "Erf")
                if inner is not None and scalar(one) == 1.0 and _is_scaled(inner.inputs[0], x):
                    return x, raised, half, product
    return None


def _is_scaled(value: Any, x: Any) -> bool:
    """Whether *value* is ``x / sqrt 2``."""
    node = producer(value, "Div", "Mul")
    if node is None:
        return False
    expected = math.sqrt(2.0) if node.op_type == "Div" else math.sqrt(0.5)
    pairs = (tuple(node.inputs),) if node.op_type == "Div" else operands(node)
    return any(left is x and (c := scalar(right)) is not None and math.isclose(c, expected, rel_tol=SQRT2_ERROR) for left, right in pairs)


RULE = Rule(
    name=NAME,
    hazard="MNN replaces x * (1 + erf(x / sqrt 2)) * 0.5 by an approximation that is off by up to 4.7e-4",
    severity="wrong", exact=True, always=False, operators=frozenset({"Erf"}), apply=apply,
)  # fmt: skip
