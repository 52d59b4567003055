"""onnxruntime's fused operators (com.microsoft), as its optimizer and its quantizer write them into a model.

Measured with MNN 3.6.1: refused, but for Gelu.  Each is written out in ONNX's own operators; the sums run in
another order than in onnxruntime's kernels, so that last bits differ.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from mnnprep.formats.onnx.graph import STANDARD_DOMAINS
from mnnprep.rules.editor import Editor
from mnnprep.rules.fused import attention
from mnnprep.rules.fused.bodies import BODIES, Body
from mnnprep.rules.fused.packed import unpacked
from mnnprep.rules.reading import Reading
from mnnprep.rules.rule import Place, Rewrite, Rule
from mnnprep.rules.splicing import write_out

DOMAINS = ("com.microsoft", "com.ms.internal.nhwc")
IN_STANDARD_DOMAIN = ("SimplifiedLayerNormalization",)  # where onnxruntime puts it, though ONNX has none
OLDEST = 13
AXES_ARE_INPUTS = 18  # of ReduceMean
ALL = {**BODIES, **attention.BODIES}


def find(reading: Reading) -> list[Place]:
    places = []
    for node, opset in reading.everything:
        if not _is_fused(node):
            continue
        body = unpacked(node, reading) if node.op_type == "MatMulNBits" else ALL[node.op_type](node, reading)
        able = body is not None and opset >= OLDEST and _gives(node, body)
        places.append(Place(node=node, detail=node.domain, match=(body, opset), repairable=able))
    return places


def apply(editor: Editor, place: Place) -> bool:
    node = place.node
    body, opset = place.match
    lines, constants = body.lines, dict(body.constants)
    if opset >= AXES_ARE_INPUTS and "<axes = [-1], keepdims = 1>" in lines:
        constants["last"] = [-1]
        lines = lines.replace("<axes = [-1], keepdims = 1> (sum)", "<keepdims = 1> (sum, last)")
        lines = lines.replace("<axes = [-1], keepdims = 1> (squared)", "<keepdims = 1> (squared, last)")
    constants = {
        name: np.array(value, np.int64) if isinstance(value, list) else value
        for name, value in constants.items()
    }
    asked = [
        name
        for name, value in zip(body.outputs, node.outputs, strict=False)
        if name and (value.uses() or value.is_graph_output())
    ]
    write_out(editor, node, lines, body.inputs, asked, **constants)
    return True


def _is_fused(node: Any) -> bool:
    if node.op_type in IN_STANDARD_DOMAIN and node.domain in STANDARD_DOMAINS:
        return True
    return node.domain in DOMAINS and (node.op_type in ALL or node.op_type == "MatMulNBits")


def _gives(node: Any, body: Body) -> bool:
    """Whether the body gives every output of the node that is asked for."""
    wanted = [
        number
        for number, value in enumerate(node.outputs)
        if value.name and (value.uses() or value.is_graph_output())
    ]
    return all(number < len(body.outputs) and body.outputs[number] for number in wanted)


RULE = Rule(
    name="microsoft-operators",
    severity="refused",
    operators=frozenset((*ALL, "MatMulNBits")),
    find=find,
    rewrite=Rewrite(apply=apply, exact=False),
    hazard="MNN does not read onnxruntime's fused operators (com.microsoft)",
    remedy="prepare the model as it was before onnxruntime optimized it",
)
