"""Round, which takes a half to the even neighbour.

Measured with MNN 3.6.1: a half goes away from zero.

It is written with Floor and comparisons: the same numbers; a zero may have the other sign.
"""

from __future__ import annotations

import numpy as np

from mnnprep.repair.rule import Match, Rewrite, Rule
from mnnprep.repair.support.building import Builder
from mnnprep.repair.support.editor import Editor
from mnnprep.repair.support.reading import ModelView


def _find(view: ModelView) -> list[Match[str]]:
    return [
        Match(at=node, opset=opset, found=view.dtype(node.inputs[0]) or "FLOAT")
        for node, opset in view.nodes("Round")
    ]


def _apply(editor: Editor, match: Match[str]) -> bool:
    node, opset, dtype = match.node, match.opset, match.plan
    build, x = Builder(editor, node, opset), node.inputs[0]
    half, one = build.constant(np.array(0.5), dtype), build.constant(1, dtype)
    low = build.op("Floor", x)
    rest = build.op("Sub", x, low)
    halved = build.op("Mul", low, half)
    odd = build.op(
        "Greater", build.op("Sub", halved, build.op("Floor", halved)), build.constant(np.array(0.25), dtype)
    )
    up = build.op("Or", build.op("Greater", rest, half), build.op("And", build.op("Equal", rest, half), odd))
    build.replace(build.op("Where", up, build.op("Add", low, one), low))
    return True


RULE = Rule(
    name="round-half",
    severity="wrong",
    operators=frozenset({"Round"}),
    find=_find,
    rewrite=Rewrite(apply=_apply, exact=True),
    hazard="MNN rounds a half away from zero; ONNX rounds it to the even neighbour",
    remedy="accept it if no value is a half, or round by Floor and a comparison",
)
