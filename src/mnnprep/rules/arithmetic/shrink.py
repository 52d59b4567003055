"""Shrink.

Measured with MNN 3.6.1: negative values are not shrunk.

It is written with Where and Greater: the same bits in float32.
"""

from __future__ import annotations

from mnnprep.rules.building import FLOATS, Builder
from mnnprep.rules.editor import Editor
from mnnprep.rules.reading import Reading
from mnnprep.rules.rule import Place, Rewrite, Rule


def find(reading: Reading) -> list[Place]:
    return [
        Place(node=node, match=(opset, dtype := reading.dtype(node.inputs[0])), repairable=dtype in FLOATS)
        for node, opset in reading.nodes("Shrink")
    ]


def apply(editor: Editor, place: Place) -> bool:
    node, (opset, dtype) = place.node, place.match
    build, x = Builder(editor, node, opset), node.inputs[0]
    limit, bias = node.attributes.get_float("lambd", 0.5), node.attributes.get_float("bias", 0.0)
    less = build.op("Sub", x, build.constant(bias, dtype))
    above = build.op(
        "Where", build.op("Greater", x, build.constant(limit, dtype)), less, build.constant(0, dtype)
    )
    below = build.op("Greater", build.constant(-limit, dtype), x)
    build.replace(build.op("Where", below, build.op("Add", x, build.constant(bias, dtype)), above))
    return True


RULE = Rule(
    name="shrink",
    severity="wrong",
    operators=frozenset({"Shrink"}),
    find=find,
    rewrite=Rewrite(apply=apply, exact=True),
    hazard="MNN's Shrink leaves negative values wrong",
    remedy="write it with Where and comparisons",
)
