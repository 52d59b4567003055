"""LpNormalization of a vector of zeros.

ONNX gives zeros. Measured with MNN 3.6.1: it divides by the norm of 0.

It is written out with a norm that is never below the smallest number: numerically equal.
"""

from __future__ import annotations

import numpy as np

from mnnprep.rules.building import FLOATS, Builder
from mnnprep.rules.editor import Editor
from mnnprep.rules.reading import Reading
from mnnprep.rules.rule import Place, Rewrite, Rule

SMALLEST = {"FLOAT16": np.finfo(np.float16).tiny}


def find(reading: Reading) -> list[Place]:
    found = [(node, opset, reading.dtype(node.inputs[0])) for node, opset in reading.nodes("LpNormalization")]
    return [
        Place(node=node, match=(opset, dtype), repairable=dtype in FLOATS) for node, opset, dtype in found
    ]


def apply(editor: Editor, place: Place) -> bool:
    node, (opset, dtype) = place.node, place.match
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
    find=find,
    rewrite=Rewrite(apply=apply, exact=False),
    hazard="MNN's LpNormalization of zeros is NaN, where ONNX gives zeros",
    remedy="write it out, with a norm that is never 0",
)
