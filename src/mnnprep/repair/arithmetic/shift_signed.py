"""BitShift of signed integers by a number that is negative, or as wide as they are.

Measured with MNN 3.6.1: a shift by a negative number, or by the width and more, is not what ONNX says (opset
28). By a number between, also of int16 and int64, it is right.

Such a shift becomes one by 31 to the right, or 0 to the left.  The same integers.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np

from mnnprep.repair.rule import Match, Rewrite, Rule
from mnnprep.repair.support.building import Builder
from mnnprep.repair.support.editor import Editor
from mnnprep.repair.support.reading import Array, ModelView, producer, tensor

if TYPE_CHECKING:
    import onnx_ir as ir

WIDTH = {"INT8": 8, "INT16": 16, "INT32": 32, "INT64": 32}  # in MNN
REPAIRED = "INT32"


def _find(view: ModelView) -> Iterator[Match[None]]:
    for node, opset in view.nodes("BitShift"):
        dtype, shift = view.dtype(node.inputs[0]), tensor(node.inputs[1])
        if (
            (width := WIDTH.get(dtype, 0))
            and not _guarded(node)
            and (dtype == REPAIRED if shift is None else _beyond(shift.numpy(), width))
        ):
            detail = "by a computed number" if shift is None else ""
            yield Match(at=node, detail=detail, opset=opset, repairable=dtype == REPAIRED)


def _beyond(shift: Array, width: int) -> bool:
    return bool(((shift < 0) | (shift >= width)).any())


def _guarded(node: ir.Node) -> bool:
    """Whether what it shifts by was put within bounds by this rule."""
    by = producer(node.inputs[1], "Where")
    return by is not None and producer(by.inputs[0], "Or") is not None


def _apply(editor: Editor, match: Match[None]) -> bool:
    node = match.node
    build, (value, by) = Builder(editor, node, match.opset), node.inputs
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
    find=_find,
    rewrite=Rewrite(apply=_apply, exact=True),
    hazard="MNN's BitShift on signed integers is wrong for shifts that are negative or as wide as the number",
    remedy="shift unsigned integers, or multiply by a power of two",
)
