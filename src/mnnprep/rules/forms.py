"""Small forms that rewrites are made of and that ONNX writes otherwise in each opset."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from mnnprep.deps import require
from mnnprep.rules.editor import Editor

AXES_ARE_INPUTS = 13  # of Unsqueeze, Squeeze and ReduceSum; so are the sizes of a Split
RANGE_IS_KNOWN = 11


def integers(editor: Editor, before: Any, *numbers: int) -> Any:
    """A constant one-dimensional int64."""
    return editor.constant(before, np.array(numbers, np.int64))


def unsqueezed(editor: Editor, before: Any, value: Any, axis: int, opset: int) -> Any:
    """*value* with one more dimension."""
    if opset < AXES_ARE_INPUTS:
        return editor.add(before, "Unsqueeze", value, axes=[axis])
    return editor.add(before, "Unsqueeze", value, integers(editor, before, axis))


def split_into(
    editor: Editor, before: Any, value: Any, sizes: Sequence[int], axis: int, opset: int
) -> list[Any]:
    """The parts of *value* along *axis*, of these sizes."""
    ir = require("onnx_ir")
    if len(sizes) == 1:
        return [value]
    outputs = [ir.Value(name=editor.name(before)) for _ in sizes]
    if opset < AXES_ARE_INPUTS:
        new = ir.node("Split", [value], {"axis": axis, "split": list(sizes)}, outputs=outputs)
    else:
        new = ir.node("Split", [value, integers(editor, before, *sizes)], {"axis": axis}, outputs=outputs)
    new.name = editor.name(before)
    before.graph.insert_before(before, new)
    return outputs


def backwards(editor: Editor, before: Any, value: Any, axis: int, size: int | None) -> Any:
    """*value* with the order along *axis* reversed; *size* is that of the axis, None where it is open (opset
    11 on).

    By a Gather: a Slice with a step of -1 is wrong in MNN.
    """
    if size is not None:
        return editor.add(before, "Gather", value, integers(editor, before, *range(size)[::-1]), axis=axis)
    zero, one = (editor.constant(before, np.array(number, np.int64)) for number in (0, 1))
    length = editor.add(
        before,
        "Gather",
        editor.add(before, "Shape", value),
        editor.constant(before, np.array(axis, np.int64)),
        axis=0,
    )
    order = editor.add(
        before, "Sub", editor.add(before, "Sub", length, one), editor.add(before, "Range", zero, length, one)
    )
    return editor.add(before, "Gather", value, order, axis=axis)
