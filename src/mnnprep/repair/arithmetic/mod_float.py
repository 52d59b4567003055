"""Mod on floats.

Measured with MNN 3.6.1: neither fmod=0 nor fmod=1 has the sign that it must have where the operands' signs
differ.

It is written with Floor, and what the rounding of ``x / y`` leaves on the wrong side is put right:
numerically equal where ``x / y`` is below 2^24.
"""

from __future__ import annotations

import numpy as np

from mnnprep.repair.rule import Match, Rewrite, Rule
from mnnprep.repair.support.building import FLOATS, Builder
from mnnprep.repair.support.editor import Editor
from mnnprep.repair.support.reading import ModelView


def _find(view: ModelView) -> list[Match[str]]:
    found = [(node, opset, view.dtype(node.inputs[0])) for node, opset in view.nodes("Mod")]
    return [Match(at=node, opset=opset, found=dtype) for node, opset, dtype in found if dtype in FLOATS]


def _apply(editor: Editor, match: Match[str]) -> bool:
    node, opset, dtype = match.node, match.opset, match.plan
    build, (x, y) = Builder(editor, node, opset), node.inputs
    zero, half = build.constant(0, dtype), build.constant(np.array(0.5), dtype)
    times = build.op("Div", x, y)
    cut = node.attributes.get_int("fmod", 0)
    times = (
        build.op("Mul", build.op("Sign", times), build.op("Floor", build.op("Abs", times)))
        if cut
        else build.op("Floor", times)
    )
    some = build.op("Greater", build.op("Abs", times), half)  # no times infinity is nothing, not NaN
    rest = build.op(
        "Sub", x, build.op("Where", some, build.op("Mul", y, times), build.op("Mul", times, zero))
    )
    leader, step = (x, build.op("Mul", build.op("Sign", x), build.op("Abs", y))) if cut else (y, y)
    astray = build.op("Greater", zero, build.op("Mul", build.op("Sign", rest), build.op("Sign", leader)))
    build.replace(build.op("Where", astray, build.op("Add", rest, step), rest))
    return True


RULE = Rule(
    name="mod-float",
    severity="wrong",
    operators=frozenset({"Mod"}),
    find=_find,
    rewrite=Rewrite(apply=_apply, exact=False),
    hazard="MNN's Mod on floats has the wrong sign if the operands' signs differ",
    remedy="write it as x - y * Floor(x / y), or with fmod=1 as x - y * Trunc(x / y)",
)
