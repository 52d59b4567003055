"""Clip whose lower bound is above its upper one.

ONNX gives the upper bound everywhere. Measured with MNN 3.6.1: the lower one comes out.  It is written as Max
and Min: the same bits.
"""

from __future__ import annotations

from mnnprep.rules.building import Builder, given
from mnnprep.rules.editor import Editor
from mnnprep.rules.reading import Reading, scalar
from mnnprep.rules.rule import Place, Rewrite, Rule

INTEGERS_SINCE = 12


def find(reading: Reading) -> list[Place]:
    found = [(node, opset) for node, opset in reading.nodes("Clip") if len(node.inputs) > 2]
    bounds = [
        (
            node,
            opset,
            *(scalar(given(node, index)) if given(node, index) is not None else None for index in (1, 2)),
        )
        for node, opset in found
    ]
    crossed = [
        (node, opset)
        for node, opset, low, high in bounds
        if low is not None and high is not None and low > high
    ]
    return [Place(node=node, match=opset, repairable=opset >= INTEGERS_SINCE) for node, opset in crossed]


def apply(editor: Editor, place: Place) -> bool:
    x, low, high = place.node.inputs
    build = Builder(editor, place.node, place.match)
    build.replace(build.op("Min", build.op("Max", x, low), high))
    return True


RULE = Rule(
    name="clip-bounds",
    severity="wrong",
    operators=frozenset({"Clip"}),
    find=find,
    rewrite=Rewrite(apply=apply, exact=True),
    hazard="MNN gives the lower bound where that of a Clip is above the upper one",
    remedy="write it as Min(Max(x, low), high)",
)
