"""LogSoftmax without ``axis``.

Measured with MNN 3.6.1: the default is not applied; the converter reads a garbage axis, or is a SIGSEGV.

The default is written out: -1, or before opset 13, when it was over all axes from there on, 1, which for two
dimensions is the same.  The same bits.
"""

from __future__ import annotations

from mnnprep.deps import require
from mnnprep.repair.rule import Match, Rewrite, Rule
from mnnprep.repair.support.editor import Editor
from mnnprep.repair.support.opsets import ONE_AXIS
from mnnprep.repair.support.reading import ModelView


def _find(view: ModelView) -> list[Match[None]]:
    found = [(node, opset) for node, opset in view.nodes("LogSoftmax") if "axis" not in node.attributes]
    return [
        Match(at=node, opset=opset, repairable=opset >= ONE_AXIS or view.rank(node.inputs[0]) == 2)
        for node, opset in found
    ]


def _apply(editor: Editor, match: Match[None]) -> bool:
    match.node.attributes.add(require("onnx_ir").AttrInt64("axis", -1 if match.opset >= ONE_AXIS else 1))
    return True


RULE = Rule(
    name="logsoftmax-axis",
    severity="crash",
    operators=frozenset({"LogSoftmax"}),
    find=_find,
    rewrite=Rewrite(apply=_apply, exact=True),
    hazard="MNN does not apply the default axis of LogSoftmax: another axis, or a crash of the converter",
    remedy="write the axis out",
)
