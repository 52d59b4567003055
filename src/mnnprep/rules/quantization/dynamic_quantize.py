"""DynamicQuantizeLinear.

Measured with MNN 3.6.1: the quantized numbers are wrong.  Written out by the formulas of ONNX's
specification.
"""

from __future__ import annotations

import numpy as np

from mnnprep.rules.editor import Editor
from mnnprep.rules.quantization.scales import ROUND_IS_KNOWN, quantized
from mnnprep.rules.reading import Reading
from mnnprep.rules.rule import Place, Rewrite, Rule

LEVELS = 255.0


def find(reading: Reading) -> list[Place]:
    return [
        Place(node=node, repairable=opset >= ROUND_IS_KNOWN)
        for node, opset in reading.nodes("DynamicQuantizeLinear")
    ]


def apply(editor: Editor, place: Place) -> bool:
    node = place.node
    x = node.inputs[0]
    nothing, levels = (editor.constant(node, np.array(number, np.float32)) for number in (0.0, LEVELS))
    low = editor.add(node, "Min", editor.add(node, "ReduceMin", x, keepdims=0), nothing)
    high = editor.add(node, "Max", editor.add(node, "ReduceMax", x, keepdims=0), nothing)
    scale = editor.add(node, "Div", editor.add(node, "Sub", high, low), levels)
    zero = quantized(
        editor, node, editor.add(node, "Div", editor.add(node, "Sub", nothing, low), scale), None, "UINT8"
    )
    result = quantized(editor, node, editor.add(node, "Div", x, scale), zero, "UINT8")
    found = dict(zip(node.outputs, (result, scale, zero), strict=False))
    editor.replace_outputs(node, {old: new for old, new in found.items() if old.name})
    return True


RULE = Rule(
    name="dynamic-quantize",
    severity="wrong",
    operators=frozenset({"DynamicQuantizeLinear"}),
    find=find,
    rewrite=Rewrite(apply=apply, exact=False),
    hazard="MNN's DynamicQuantizeLinear gives other numbers",
    remedy="export in float and prepare with --weight-bits 8",
)
