"""Convolutions and products of quantized numbers: QLinearConv, QLinearMatMul, ConvInteger, MatMulInteger.

Measured with MNN 3.6.1: refused.  Written out in float32, in which the sums of products are exact as long as
they stay below 2^24 (about 500 products of the largest 8-bit numbers; beyond, a sum may be off in its eighth
digit).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from mnnprep.repair.rule import Match, Rewrite, Rule
from mnnprep.repair.support.building import Builder, attributes_of, fed, given
from mnnprep.repair.support.editor import Editor
from mnnprep.repair.support.opsets import SINCE
from mnnprep.repair.support.reading import ModelView
from mnnprep.repair.support.scales import RANGES, quantized, real, shifted

if TYPE_CHECKING:
    import onnx_ir as ir

    from mnnprep.repair.support.reading import Operand

OPS = ("QLinearConv", "QLinearMatMul", "ConvInteger", "MatMulInteger")
ZERO_OF_RESULT = {"QLinearConv": 7, "QLinearMatMul": 7}


def _find(view: ModelView) -> Iterator[Match[str]]:
    for node, opset in view.nodes(*OPS):
        place = ZERO_OF_RESULT.get(node.op_type)
        dtype = view.dtype(node.inputs[place]) if place is not None else "INT32"
        ranks = [view.rank(node.inputs[0]), view.rank(node.inputs[3 if place else 1])]
        able = (
            opset >= SINCE["Round" if place else "ConvInteger"]
            and None not in ranks
            and (place is None or dtype in RANGES)
        )
        yield Match(at=node, opset=opset, found=dtype, repairable=able)


def _apply(editor: Editor, match: Match[str]) -> bool:
    node, dtype = match.node, match.plan
    build = Builder(editor, node, match.opset)
    if node.op_type.startswith("QLinear"):
        _quantized_product(build, dtype)
        return True
    a_zero, b_zero = given(node, 2), given(node, 3)
    build.replace_only(build.cast(_product(build, fed(node, 0), a_zero, fed(node, 1), b_zero), "INT32"))
    return True


def _quantized_product(build: Builder, dtype: str) -> None:
    node, conv = build.node, "Conv" in build.node.op_type
    a, of_a, b, of_b, of_y = (fed(node, index) for index in (0, 1, 3, 4, 6))
    a_zero, b_zero, y_zero = (given(node, index) for index in (2, 5, 7))
    result = _product(build, a, a_zero, b, b_zero)
    if conv:
        of_b = _per_channel(build, of_b, a)
    else:
        of_a = _per_row(build, of_a)
    scale = build.op("Mul", real(build, of_a), real(build, of_b))
    result = build.op("Mul", result, build.op("Div", scale, real(build, of_y)))
    build.replace_only(quantized(build, result, y_zero, dtype))


def _product(build: Builder, a: ir.Value, a_zero: Operand, b: ir.Value, b_zero: Operand) -> ir.Value:
    """The product of the two operands in float32, without their zero points."""
    if "Conv" not in build.node.op_type:
        left = shifted(build, a, None if a_zero is None else _per_row(build, a_zero))
        return build.op("MatMul", left, shifted(build, b, b_zero))
    left = shifted(build, a, a_zero)
    right = shifted(build, b, None if b_zero is None else _per_filter(build, b_zero, b))
    bias = given(build.node, 8)
    more = [real(build, bias)] if bias is not None else []
    return build.op("Conv", left, right, *more, **attributes_of(build.node))


def _per_row(build: Builder, value: ir.Value) -> ir.Value:
    """One number for each row of the left operand."""
    sizes = build.editor.view.dims(value)
    return build.unsqueeze(value, 1) if sizes is not None and len(sizes) == 1 and sizes[0] != 1 else value


def _per_filter(build: Builder, value: ir.Value, weight: ir.Value) -> ir.Value:
    return _reshaped(build, value, [-1, *[1] * ((build.editor.view.rank(weight) or 4) - 1)])


def _per_channel(build: Builder, value: ir.Value, x: ir.Value) -> ir.Value:
    return _reshaped(build, value, [1, -1, *[1] * ((build.editor.view.rank(x) or 4) - 2)])


def _reshaped(build: Builder, value: ir.Value, shape: list[int]) -> ir.Value:
    sizes = build.editor.view.dims(value)
    return value if not sizes or sizes == (1,) else build.reshape(value, *shape)


RULE = Rule(
    name="integer-products",
    severity="refused",
    operators=frozenset(OPS),
    find=_find,
    rewrite=Rewrite(apply=_apply, exact=False),
    hazard="MNN does not read convolutions and products of quantized numbers",
    remedy="export in float and prepare with --weight-bits 8",
)
