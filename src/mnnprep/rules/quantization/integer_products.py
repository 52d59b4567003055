"""Convolutions and products of quantized numbers: QLinearConv, QLinearMatMul, ConvInteger, MatMulInteger.

Measured with MNN 3.6.1: refused.  Written out in float32, in which the sums of products are exact as long as
they stay below 2^24 (about 500 products of the largest 8-bit numbers; beyond, a sum may be off in its eighth
digit).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from mnnprep.deps import require
from mnnprep.rules.editor import Editor
from mnnprep.rules.forms import integers, unsqueezed
from mnnprep.rules.quantization.scales import RANGES, ROUND_IS_KNOWN, quantized, real, shifted
from mnnprep.rules.reading import Reading
from mnnprep.rules.rule import Place, Rewrite, Rule

OPS = ("QLinearConv", "QLinearMatMul", "ConvInteger", "MatMulInteger")
ZERO_OF_RESULT = {"QLinearConv": 7, "QLinearMatMul": 7}


def find(reading: Reading) -> Iterator[Place]:
    for node, opset in reading.nodes(*OPS):
        place = ZERO_OF_RESULT.get(node.op_type)
        dtype = reading.dtype(node.inputs[place]) if place is not None else "INT32"
        ranks = [reading.rank(node.inputs[0]), reading.rank(node.inputs[3 if place else 1])]
        able = (
            opset >= ROUND_IS_KNOWN - (0 if place else 1)
            and None not in ranks
            and (place is None or dtype in RANGES)
        )
        yield Place(node=node, match=(dtype, opset), repairable=able)


def apply(editor: Editor, place: Place) -> bool:
    node = place.node
    dtype, opset = place.match
    conv = "Conv" in node.op_type
    given = [*node.inputs, *[None] * 9]
    if node.op_type.startswith("QLinear"):
        a, of_a, a_zero, b, of_b, b_zero, of_y, y_zero = given[:8]
    else:
        a, b, a_zero, b_zero = given[:4]
    left = shifted(editor, node, a, _for_rows(editor, node, a_zero, opset) if not conv else a_zero)
    right = shifted(editor, node, b, _for_filters(editor, node, b_zero, b) if conv else b_zero)
    if conv:
        attributes = {name: attribute.value for name, attribute in node.attributes.items()}
        bias = [real(editor, node, given[8])] if given[8] is not None else []
        result = editor.add(node, "Conv", left, right, *bias, **attributes)
    else:
        result = editor.add(node, "MatMul", left, right)
    if node.op_type.startswith("QLinear"):
        of_b = _for_channels(editor, node, of_b, a) if conv else of_b
        of_a = of_a if conv else _for_rows(editor, node, of_a, opset)
        scale = editor.add(node, "Mul", real(editor, node, of_a), real(editor, node, of_b))
        result = editor.add(node, "Mul", result, editor.add(node, "Div", scale, real(editor, node, of_y)))
        editor.replace(node, quantized(editor, node, result, y_zero, dtype))
    else:
        editor.replace(node, editor.add(node, "Cast", result, to=int(require("onnx_ir").DataType.INT32)))
    return True


def _for_rows(editor: Editor, node: Any, value: Any, opset: int) -> Any:
    """One number for each row of the left operand."""
    sizes = editor.reading.dims(value) if value is not None else None
    return (
        unsqueezed(editor, node, value, 1, opset)
        if sizes is not None and len(sizes) == 1 and sizes[0] != 1
        else value
    )


def _for_filters(editor: Editor, node: Any, value: Any, weight: Any) -> Any:
    return _reshaped(editor, node, value, [-1, *[1] * ((editor.reading.rank(weight) or 4) - 1)])


def _for_channels(editor: Editor, node: Any, value: Any, fed: Any) -> Any:
    return _reshaped(editor, node, value, [1, -1, *[1] * ((editor.reading.rank(fed) or 4) - 2)])


def _reshaped(editor: Editor, node: Any, value: Any, shape: list[int]) -> Any:
    sizes = editor.reading.dims(value) if value is not None else None
    return (
        value
        if not sizes or sizes == (1,)
        else editor.add(node, "Reshape", value, integers(editor, node, *shape))
    )


RULE = Rule(
    name="integer-products",
    severity="refused",
    operators=frozenset(OPS),
    find=find,
    rewrite=Rewrite(apply=apply, exact=False),
    hazard="MNN does not read convolutions and products of quantized numbers",
    remedy="export in float and prepare with --weight-bits 8",
)
