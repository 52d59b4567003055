"""LpNormalization of a vector of zeros.

ONNX gives zeros. Measured with MNN 3.6.1: it divides by the norm of 0.

It is written out with a norm that is never below the smallest number: numerically equal.
"""

from __future__ import annotations

import numpy as np

from mnnprep.repair.rule import Match, Rewrite, Rule
from mnnprep.repair.support.building import FLOATS, Builder
from mnnprep.repair.support.editor import Editor
from mnnprep.repair.support.reading import ModelView

SMALLEST = {"FLOAT16": np.finfo(np.float16).tiny}


def _find(view: ModelView) -> list[Match[str]]:
    found = [(node, opset, view.dtype(node.inputs[0])) for node, opset in view.nodes("LpNormalization")]
    return [
        Match(at=node, opset=opset, found=dtype, repairable=dtype in FLOATS) for node, opset, dtype in found
    ]


def _apply(editor: Editor, match: Match[str]) -> bool:
    node, opset, dtype = match.node, match.opset, match.plan
    build, x = Builder(editor, node, opset), node.inputs[0]
    axis, square = node.attributes.get_int("axis", -1), node.attributes.get_int("p", 2) == 2
    total = build.reduce(
        "ReduceSum", build.op("Mul", x, x) if square else build.op("Abs", x), (axis,), keep=True
    )
    norm = build.op("Sqrt", total) if square else total
    build.replace(
        build.op(
            "Div",
            x,
            build.op(
                "Max", norm, build.constant(np.array(SMALLEST.get(dtype, np.finfo(np.float32).tiny)), dtype)
            ),
        )
    )
    return True


RULE = Rule(
    name="lp-of-zeros",
    severity="narrowed",
    operators=frozenset({"LpNormalization"}),
    find=_find,
    rewrite=Rewrite(apply=_apply, exact=False),
    hazard="MNN's LpNormalization of zeros is NaN; ONNX gives zeros",
    remedy="write it out, with a norm that is never 0",
)
