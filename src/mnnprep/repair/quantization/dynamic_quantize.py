"""DynamicQuantizeLinear.

Measured with MNN 3.6.1: the quantized numbers are wrong.  Written out by the formulas of ONNX's
specification.
"""

from __future__ import annotations

import numpy as np

from mnnprep.repair.rule import Match, Rewrite, Rule
from mnnprep.repair.support.building import Builder
from mnnprep.repair.support.editor import Editor
from mnnprep.repair.support.opsets import SINCE
from mnnprep.repair.support.reading import ModelView
from mnnprep.repair.support.scales import quantized

LEVELS = 255.0


def _find(view: ModelView) -> list[Match[None]]:
    return [
        Match(at=node, opset=opset, repairable=opset >= SINCE["Round"])
        for node, opset in view.nodes("DynamicQuantizeLinear")
    ]


def _apply(editor: Editor, match: Match[None]) -> bool:
    node = match.node
    build, x = Builder(editor, node, match.opset), node.inputs[0]
    nothing, levels = (build.constant(np.array(number, np.float32)) for number in (0.0, LEVELS))
    low = build.op("Min", build.op("ReduceMin", x, keepdims=0), nothing)
    high = build.op("Max", build.op("ReduceMax", x, keepdims=0), nothing)
    scale = build.op("Div", build.op("Sub", high, low), levels)
    zero = quantized(build, build.op("Div", build.op("Sub", nothing, low), scale), None, "UINT8")
    result = quantized(build, build.op("Div", x, scale), zero, "UINT8")
    found = dict(zip(node.outputs, (result, scale, zero), strict=False))
    editor.replace_outputs(node, {old: new for old, new in found.items() if old.name})
    return True


RULE = Rule(
    name="dynamic-quantize",
    severity="wrong",
    operators=frozenset({"DynamicQuantizeLinear"}),
    find=_find,
    rewrite=Rewrite(apply=_apply, exact=False),
    hazard="MNN's DynamicQuantizeLinear gives other numbers",
    remedy="export in float and prepare with --weight-bits 8",
)
