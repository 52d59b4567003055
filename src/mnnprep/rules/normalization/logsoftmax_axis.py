"""LogSoftmax without ``axis``.

Measured with MNN 3.6.1: the default is not applied; the converter reads a garbage axis, or is a SIGSEGV.

The default is written out: -1, or before opset 13, when it was over all axes from there on, 1, which for two
dimensions is the same.  The same bits.
"""

from __future__ import annotations

from mnnprep.deps import require
from mnnprep.rules.editor import Editor
from mnnprep.rules.reading import Reading
from mnnprep.rules.rule import Place, Rewrite, Rule

ONE_AXIS = 13


def find(reading: Reading) -> list[Place]:
    found = [(node, opset) for node, opset in reading.nodes("LogSoftmax") if "axis" not in node.attributes]
    return [
        Place(node=node, match=opset, repairable=opset >= ONE_AXIS or reading.rank(node.inputs[0]) == 2)
        for node, opset in found
    ]


def apply(editor: Editor, place: Place) -> bool:
    place.node.attributes.add(require("onnx_ir").AttrInt64("axis", -1 if place.match >= ONE_AXIS else 1))
    return True


RULE = Rule(
    name="logsoftmax-axis",
    severity="crash",
    operators=frozenset({"LogSoftmax"}),
    find=find,
    rewrite=Rewrite(apply=apply, exact=True),
    hazard="MNN does not apply the default axis of LogSoftmax: another axis, or a crash of the converter",
    remedy="write the axis out",
)
