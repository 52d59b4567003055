"""Shrink.

Measured with MNN 3.6.1: negative values are not shrunk.

It is written with Where and Greater: the same bits in float32.
"""

from __future__ import annotations

from mnnprep.repair.rule import Match, Rewrite, Rule
from mnnprep.repair.support.building import FLOATS, Builder
from mnnprep.repair.support.editor import Editor
from mnnprep.repair.support.reading import ModelView


def _find(view: ModelView) -> list[Match[str]]:
    return [
        Match(at=node, opset=opset, found=(dtype := view.dtype(node.inputs[0])), repairable=dtype in FLOATS)
        for node, opset in view.nodes("Shrink")
    ]


def _apply(editor: Editor, match: Match[str]) -> bool:
    node, opset, dtype = match.node, match.opset, match.plan
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
    find=_find,
    rewrite=Rewrite(apply=_apply, exact=True),
    hazard="MNN's Shrink leaves negative values wrong",
    remedy="write it with Where and comparisons",
)
