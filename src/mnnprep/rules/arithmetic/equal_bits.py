"""Equal on floats.

Measured with MNN 3.6.1: the bits are compared: 0 and -0 are different, and a NaN equals itself. Between
integers, and against a constant that is neither 0 nor NaN, it is right.

Written as at least and at most it has ONNX's answers.
"""

from __future__ import annotations

from typing import Any

from mnnprep.rules.building import Builder
from mnnprep.rules.editor import Editor
from mnnprep.rules.reading import Reading, tensor
from mnnprep.rules.rule import Place, Rewrite, Rule

AT_LEAST = 12  # the opset that brought GreaterOrEqual
FLOATS = ("FLOAT", "FLOAT16", "DOUBLE")


def find(reading: Reading) -> list[Place]:
    found = [
        (node, opset) for node, opset in reading.nodes("Equal") if reading.dtype(node.inputs[0]) in FLOATS
    ]
    return [
        Place(node=node, match=opset, repairable=opset >= AT_LEAST)
        for node, opset in found
        if not any(_plain(value) for value in node.inputs)
    ]


def apply(editor: Editor, place: Place) -> bool:
    node = place.node
    build = Builder(editor, node, place.match)
    build.replace(
        build.op("And", build.op("GreaterOrEqual", *node.inputs), build.op("LessOrEqual", *node.inputs))
    )
    return True


def _plain(value: Any) -> bool:
    held = tensor(value)
    return held is not None and bool(((held.numpy() != 0) & (held.numpy() == held.numpy())).all())


RULE = Rule(
    name="equal-bits",
    severity="narrowed",
    operators=frozenset({"Equal"}),
    find=find,
    rewrite=Rewrite(apply=apply, exact=True),
    hazard="MNN compares floats bit by bit: 0 and -0 differ, a NaN equals itself",
    remedy="compare with a tolerance, or integers",
)
