"""Arithmetic, comparisons and pooling on 8-bit integers.

Measured with MNN 3.6.1: Add, Sub, Mul, Max, Min and Mod on int8 or uint8 are a SIGSEGV at run time,
comparisons and BitShift on them give no output; a Cast to uint8 is a SIGSEGV of the converter.

They are computed in int32, and the low 8 bits looked up in a table of the 8-bit integers, which MNN's Gather
gives back.  The same integers.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from mnnprep.repair.rule import Match, Rewrite, Rule
from mnnprep.repair.support.building import Builder
from mnnprep.repair.support.editor import Editor
from mnnprep.repair.support.opsets import INTEGER_BOUNDS, SINCE
from mnnprep.repair.support.reading import ModelView

if TYPE_CHECKING:
    import onnx_ir as ir

    from mnnprep.repair.support.reading import Operand

COMPARISONS = ("Equal", "Greater", "GreaterOrEqual", "Less", "LessOrEqual")
BINARY = (
    "Clip",
    "Add",
    "Sub",
    "Mul",
    "Div",
    "Max",
    "Min",
    "Mod",
    "Pow",
    "BitShift",
    "Sum",
    "Mean",
    *COMPARISONS,
)
REPAIRED = ("Clip", "Add", "Sub", "Mul", "Div", "Max", "Min", "Mod", "BitShift", *COMPARISONS)
NARROW = ("INT8", "UINT8")
WHOLE = {"INT8": np.int8, "UINT8": np.uint8}


def _find(view: ModelView) -> list[Match[str]]:
    return [
        Match(
            at=node,
            detail=dtype.lower(),
            opset=opset,
            found=dtype,
            repairable=node.op_type in REPAIRED and _since(node.op_type) <= opset,
        )
        for node, opset in view.nodes(*BINARY)
        if sum(value is not None for value in node.inputs) > 1
        and (dtype := view.dtype(node.inputs[0])) in NARROW
    ]


def _since(op_type: str) -> int:
    return INTEGER_BOUNDS if op_type in ("Clip", "Max", "Min") else SINCE["Mod"]


def _apply(editor: Editor, match: Match[str]) -> bool:
    node, opset, dtype = match.node, match.opset, match.plan
    build = Builder(editor, node, opset)
    wide = [None if value is None else build.cast(value, "INT32") for value in node.inputs]
    if node.op_type in COMPARISONS:
        build.replace(
            build.op("Greater", wide[1], wide[0]) if node.op_type == "Less" else build.op(node.op_type, *wide)
        )
        return True
    attributes = {name: attribute.value for name, attribute in node.attributes.items()}
    found = (
        _shifted(build, wide[0], wide[1], attributes)
        if node.op_type == "BitShift"
        else build.op(node.op_type, *wide, **attributes)
    )
    build.replace(narrowed(build, found, dtype))
    return True


def narrowed(build: Builder, value: Operand, dtype: str) -> ir.Value:
    """The low 8 bits of the int32 *value* as *dtype*."""
    table = build.constant(np.arange(256, dtype=np.uint8).view(WHOLE[dtype]))
    return build.op("Gather", table, build.op("Mod", value, build.constant(256, "INT32")), axis=0)


def _shifted(build: Builder, value: Operand, by: Operand, attributes: dict[str, Any]) -> ir.Value:
    """Shift 8 bits in an int32 by a product or a quotient with a power of two.

    By 8 and more as by 8, and so by less than 0.
    """
    nothing, most = build.constant(0, "INT32"), build.constant(8, "INT32")
    by = build.op("Where", build.op("Greater", nothing, by), most, build.op("Min", by, most))
    power = build.op("Gather", build.constant(2 ** np.arange(9, dtype=np.int32)), by, axis=0)
    if attributes["direction"] == "LEFT":
        return build.op("Mul", value, power)
    return build.op("Div", build.op("Sub", value, build.op("Mod", value, power)), power)


RULE = Rule(
    name="narrow-integer-arithmetic",
    severity="crash",
    operators=frozenset(BINARY),
    find=_find,
    rewrite=Rewrite(apply=_apply, exact=True),
    hazard="MNN crashes, or gives nothing, in arithmetic and comparisons on 8-bit integers",
    remedy="cast to int32 before, and back after",
)
