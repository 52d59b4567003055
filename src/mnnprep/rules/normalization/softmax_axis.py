"""Softmax before opset 13 without ``axis``, whose default there is 1.

Measured with MNN 3.6.1: the last axis is taken, so only a tensor of two dimensions comes out right; a
squeezenet was off by 0.999.

The Softmax is over what is reshaped to two dimensions, as those opsets mean it.  The same bits.
"""

from __future__ import annotations

from mnnprep.rules.building import Builder
from mnnprep.rules.editor import Editor
from mnnprep.rules.reading import Reading
from mnnprep.rules.rule import Place, Rewrite, Rule


def find(reading: Reading) -> list[Place]:
    found = [
        (node, opset)
        for node, opset in reading.nodes("Softmax")
        if opset < 13 and "axis" not in node.attributes
    ]
    return [
        Place(node=node, match=opset, repairable=opset >= 5)
        for node, opset in found
        if reading.rank(node.inputs[0]) != 2
    ]


def apply(editor: Editor, place: Place) -> bool:
    node = place.node
    build, x = Builder(editor, node, place.match), node.inputs[0]
    flat = build.op("Softmax", build.op("Flatten", x, axis=1), axis=1)
    build.replace(build.op("Reshape", flat, build.op("Shape", x)))
    return True


RULE = Rule(
    name="softmax-axis",
    severity="wrong",
    operators=frozenset({"Softmax"}),
    find=find,
    rewrite=Rewrite(apply=apply, exact=True),
    hazard="MNN does not apply the default axis=1 of a Softmax before opset 13",
    remedy="write the axis out, or export at opset 13",
)
