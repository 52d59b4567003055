"""BitShift of signed integers by a number that is negative, or as wide as they are.

Measured with MNN 3.6.1: a shift by a negative number, or by the width and more, is not what ONNX says (opset
28). By a number between, also of int16 and int64, it is right.

Such a shift becomes one by 31 to the right, or 0 to the left.  The same integers.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from mnnprep.rules.building import Builder
from mnnprep.rules.editor import Editor
from mnnprep.rules.reading import Array, Reading, tensor
from mnnprep.rules.rule import Place, Rewrite, Rule

WIDTH = {"INT8": 8, "INT16": 16, "INT32": 32, "INT64": 32}  # in MNN
REPAIRED = "INT32"


def find(reading: Reading) -> list[Place]:
    places = []
    for node, opset in reading.nodes("BitShift"):
        dtype, shift = reading.dtype(node.inputs[0]), tensor(node.inputs[1])
        if (
            (width := WIDTH.get(dtype, 0))
            and not _guarded(node)
            and (dtype == REPAIRED if shift is None else _beyond(shift.numpy(), width))
        ):
            places.append(
                Place(
                    node=node,
                    detail="by a computed number" if shift is None else "",
                    match=opset,
                    repairable=dtype == REPAIRED,
                )
            )
    return places


def _beyond(shift: Array, width: int) -> bool:
    return bool(((shift < 0) | (shift >= width)).any())


def _guarded(node: Any) -> bool:
    """Whether what it shifts by was put within bounds by this rule."""
    by = node.inputs[1].producer()
    return (
        by is not None
        and by.op_type == "Where"
        and (by.inputs[0].producer() is not None and by.inputs[0].producer().op_type == "Or")
    )


def apply(editor: Editor, place: Place) -> bool:
    node = place.node
    build, (value, by) = Builder(editor, node, place.match), node.inputs
    left = node.attributes.get_string("direction", "LEFT") == "LEFT"
    nothing, most = build.constant(np.array(0, np.int32)), build.constant(np.array(31, np.int32))
    beyond = build.op("Or", build.op("Greater", nothing, by), build.op("Greater", by, most))
    bounded = build.op("Where", beyond, nothing if left else most, by)
    shifted = build.op("BitShift", value, bounded, direction="LEFT" if left else "RIGHT")
    build.replace(build.op("Where", beyond, nothing, shifted) if left else shifted)
    return True


RULE = Rule(
    name="shift-signed",
    severity="wrong",
    operators=frozenset({"BitShift"}),
    find=find,
    rewrite=Rewrite(apply=apply, exact=True),
    hazard="MNN's BitShift on signed integers is wrong for shifts that are negative or as wide as the number",
    remedy="shift unsigned integers, or multiply by a power of two",
)
