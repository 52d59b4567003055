"""Mish, Swish, IsNaN, IsInf and the bitwise operators, which MNN's converter does not read.

Measured with MNN 3.6.1: refused.  They are written with operators that it does read: numerically equal, the
tests and the integers the same. The integers of a bitwise operator are taken to fit in 32 bits, as all that
MNN has.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from mnnprep.repair.rule import Match, Rewrite, Rule
from mnnprep.repair.support.building import FLOATS, Builder, lacking
from mnnprep.repair.support.editor import Editor
from mnnprep.repair.support.opsets import EQUAL_FLOATS, SINCE
from mnnprep.repair.support.reading import ModelView
from mnnprep.repair.types.narrow_integer_arithmetic import NARROW, narrowed

if TYPE_CHECKING:
    import onnx_ir as ir

    from mnnprep.repair.support.reading import Operand

BITWISE = ("BitwiseAnd", "BitwiseOr", "BitwiseXor", "BitwiseNot")
OPS = ("Mish", "Swish", "IsNaN", "IsInf", *BITWISE)
UNSIGNED_WIDE = ("UINT32", "UINT64")
BITS = 31  # and the sign


def _find(view: ModelView) -> list[Match[str]]:
    found = [(node, opset, view.dtype(node.inputs[0])) for node, opset in lacking(view, *OPS)]
    return [
        Match(at=node, opset=opset, found=dtype, repairable=_able(node, opset, dtype))
        for node, opset, dtype in found
    ]


def _able(node: ir.Node, opset: int, dtype: str) -> bool:
    if node.op_type in BITWISE:
        return bool(dtype) and not (node.op_type == "BitwiseNot" and dtype in UNSIGNED_WIDE)
    return dtype in FLOATS and opset >= (SINCE["GreaterOrEqual"] if node.op_type == "IsNaN" else EQUAL_FLOATS)


def _apply(editor: Editor, match: Match[str]) -> bool:
    node, opset, dtype = match.node, match.opset, match.plan
    build, x = Builder(editor, node, opset), node.inputs[0]
    if node.op_type in BITWISE:
        build.replace(_bitwise(build, dtype))
    elif node.op_type == "Mish":
        build.replace(build.op("Mul", x, build.op("Tanh", build.op("Softplus", x))))
    elif node.op_type == "Swish":
        alpha = node.attributes.get_float("alpha", 1.0)
        build.replace(
            build.op(
                "Mul",
                x,
                build.op(
                    "Sigmoid",
                    x if alpha == 1.0 else build.op("Mul", x, build.constant(np.array(alpha), dtype)),
                ),
            )
        )
    elif node.op_type == "IsNaN":
        build.replace(_is_nan(build, x, dtype))
    else:
        build.replace(_is_infinite(build, x, dtype))
    return True


def _is_nan(build: Builder, x: Operand, dtype: str) -> ir.Value:
    """Neither at least 0 nor at most 0; in MNN NaN is equal to NaN, and greater than a number."""
    zero = build.constant(0, dtype)
    return build.op(
        "Not", build.op("Or", build.op("GreaterOrEqual", x, zero), build.op("LessOrEqual", x, zero))
    )


def _is_infinite(build: Builder, x: Operand, dtype: str) -> ir.Value:
    signs: list[float] = [
        sign
        for sign, name in ((1, "detect_positive"), (-1, "detect_negative"))
        if build.node.attributes.get_int(name, 1)
    ]
    if len(signs) == 2:
        return build.op("Equal", build.op("Abs", x), build.constant(np.array(np.inf), dtype))
    return build.op("Equal", x, build.constant(np.array((signs or [np.nan])[0] * np.inf), dtype))


def _bitwise(build: Builder, dtype: str) -> ir.Value:
    within = "INT64" if dtype in ("INT64", "UINT64", "UINT32") else "INT32"
    values = [value if dtype == within else build.cast(value, within) for value in build.node.inputs]
    if build.node.op_type == "BitwiseNot":
        top = {"UINT8": 255, "UINT16": 65535}.get(dtype, -1)
        found = build.op("Sub", build.constant(top, within), values[0])
    else:
        found = _combined(build, values, within)
    return (
        narrowed(build, found, dtype)
        if dtype in NARROW
        else found
        if dtype == within
        else build.cast(found, dtype)
    )


def _combined(build: Builder, values: Sequence[Operand], within: str) -> ir.Value:
    """Every bit of both, on a new last axis; the sign apart."""
    powers, two = build.constant(2 ** np.arange(BITS), within), build.constant(2, within)
    pairs = []
    for value in values:
        wide = build.unsqueeze(value, -1)
        whole = build.op("Div", build.op("Sub", wide, build.op("Mod", wide, powers)), powers)
        pairs.append(
            (
                build.op("Mod", whole, two),
                build.cast(build.op("Greater", build.constant(0, within), value), within),
            )
        )
    (left, left_sign), (right, right_sign) = pairs
    bits, signs = _meet(build, left, right, two), _meet(build, left_sign, right_sign, two)
    total = build.reduce("ReduceSum", build.op("Mul", bits, powers), (-1,), keep=False)
    return build.op("Add", total, build.op("Mul", signs, build.constant(-(2**BITS), within)))


def _meet(build: Builder, a: Operand, b: Operand, two: Operand) -> ir.Value:
    both = build.op("Mul", a, b)
    if build.node.op_type == "BitwiseAnd":
        return both
    return build.op(
        "Sub",
        build.op("Add", a, b),
        both if build.node.op_type == "BitwiseOr" else build.op("Mul", both, two),
    )


RULE = Rule(
    name="elementwise-written-out",
    severity="refused",
    operators=frozenset(OPS),
    find=_find,
    rewrite=Rewrite(apply=_apply, exact=False),
    hazard="MNN's converter does not read Mish, Swish, IsNaN, IsInf and the bitwise operators",
    remedy="write it with other operators, as prepare does",
)
