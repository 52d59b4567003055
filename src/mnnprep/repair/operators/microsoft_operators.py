"""onnxruntime's fused operators (com.microsoft), as its optimizer and its quantizer write them into a model.

Measured with MNN 3.6.1: refused, but for Gelu.  Each is written out in ONNX's own operators; the sums run in
another order than in onnxruntime's kernels, so that last bits differ.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, NamedTuple

from mnnprep.formats.onnx.graph import STANDARD_DOMAINS
from mnnprep.repair.rule import Match, Rewrite, Rule
from mnnprep.repair.support import fused_attention, fused_quantized
from mnnprep.repair.support.building import asked
from mnnprep.repair.support.editor import Editor
from mnnprep.repair.support.fused_bodies import BODIES, Body
from mnnprep.repair.support.fused_packed import unpacked
from mnnprep.repair.support.opsets import INPUTS_SINCE
from mnnprep.repair.support.reading import ModelView
from mnnprep.repair.support.splicing import write_out

if TYPE_CHECKING:
    import onnx_ir as ir

DOMAINS = ("com.microsoft", "com.ms.internal.nhwc")
IN_STANDARD_DOMAIN = ("SimplifiedLayerNormalization",)  # where onnxruntime puts it, though ONNX has none
MEAN = re.compile(r"ReduceMean <axes = \[-1\], keepdims = 1> \((\w+)\)")  # as the bodies have it
OLDEST = INPUTS_SINCE["Unsqueeze"]  # the bodies are written so
ALL = {**BODIES, **fused_attention.BODIES, **fused_quantized.BODIES}


class Written(NamedTuple):
    """A node's body, and the inputs that it was written for.

    A fused operator before it, written out first, puts other values in their places.
    """

    body: Body
    inputs: tuple[ir.Value | None, ...]


def _find(view: ModelView) -> list[Match[Written | None]]:
    matches: list[Match[Written | None]] = []
    for node, opset in view.everything:
        if not _is_fused(node):
            continue
        body = unpacked(node, view) if node.op_type == "MatMulNBits" else ALL[node.op_type](node, view)
        able = body is not None and opset >= OLDEST and _gives(node, body)
        found = Written(body, tuple(node.inputs)) if body is not None else None
        matches.append(Match(at=node, detail=node.domain, opset=opset, found=found, repairable=able))
    return matches


def _apply(editor: Editor, match: Match[Written | None]) -> bool:
    node, plan = match.node, match.plan
    assert plan is not None, "a node without a body is not repairable"
    body, now = plan.body, dict(zip(plan.inputs, node.inputs, strict=True))
    inputs = {name: now.get(value, value) for name, value in body.inputs.items()}
    lines, constants = body.lines, dict(body.constants)
    if match.opset >= INPUTS_SINCE["ReduceMean"] and MEAN.search(lines):
        constants["last"] = [-1]
        lines = MEAN.sub(r"ReduceMean <keepdims = 1> (\1, last)", lines)
    wanted = [name for number, name in enumerate(body.outputs) if name and asked(node, number)]
    write_out(editor, node, lines, inputs, wanted, constants)
    return True


def _is_fused(node: ir.Node) -> bool:
    if node.op_type in IN_STANDARD_DOMAIN and node.domain in STANDARD_DOMAINS:
        return True
    return node.domain in DOMAINS and (node.op_type in ALL or node.op_type == "MatMulNBits")


def _gives(node: ir.Node, body: Body) -> bool:
    """Whether the body gives every output of the node that is asked for."""
    wanted = [number for number in range(len(node.outputs)) if asked(node, number)]
    return all(number < len(body.outputs) and body.outputs[number] for number in wanted)


RULE = Rule(
    name="microsoft-operators",
    severity="refused",
    operators=frozenset((*ALL, "MatMulNBits")),
    find=_find,
    rewrite=Rewrite(apply=_apply, exact=False),
    hazard="MNN does not read onnxruntime's fused operators (com.microsoft)",
    remedy="prepare the model as it was before onnxruntime optimized it",
)
