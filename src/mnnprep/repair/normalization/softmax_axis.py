"""Softmax before opset 13 without ``axis``, whose default there is 1.

Measured with MNN 3.6.1: the last axis is taken, so only a tensor of two dimensions comes out right; a
squeezenet was off by 0.999.

The Softmax is over what is reshaped to two dimensions, as those opsets mean it.  The same bits.
"""

from __future__ import annotations

from mnnprep.repair.rule import Match, Rewrite, Rule
from mnnprep.repair.support.building import Builder
from mnnprep.repair.support.editor import Editor
from mnnprep.repair.support.opsets import INPUTS_SINCE, ONE_AXIS
from mnnprep.repair.support.reading import ModelView


def _find(view: ModelView) -> list[Match[None]]:
    found = [
        (node, opset)
        for node, opset in view.nodes("Softmax")
        if opset < ONE_AXIS and "axis" not in node.attributes
    ]
    return [
        Match(at=node, opset=opset, repairable=opset >= INPUTS_SINCE["Reshape"])
        for node, opset in found
        if view.rank(node.inputs[0]) != 2
    ]


def _apply(editor: Editor, match: Match[None]) -> bool:
    node = match.node
    build, x = Builder(editor, node, match.opset), node.inputs[0]
    flat = build.op("Softmax", build.op("Flatten", x, axis=1), axis=1)
    build.replace(build.op("Reshape", flat, build.op("Shape", x)))
    return True


RULE = Rule(
    name="softmax-axis",
    severity="wrong",
    operators=frozenset({"Softmax"}),
    find=_find,
    rewrite=Rewrite(apply=_apply, exact=True),
    hazard="MNN does not apply the default axis=1 of a Softmax before opset 13",
    remedy="write the axis out, or export at opset 13",
)
