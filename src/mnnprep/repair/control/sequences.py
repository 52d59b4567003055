"""Sequences and optionals within a graph whose length is the same for every input.

Measured with MNN 3.6.1: SequenceAt, ConcatFromSequence and SplitToSequence are right in some forms only;
SequenceConstruct, SequenceInsert, SequenceErase, SequenceLength and the Optional operators are refused.  What
is done with a sequence is done with its tensors.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np

from mnnprep.deps import require
from mnnprep.repair.rule import Match, Rewrite, Rule
from mnnprep.repair.support.building import Builder, fed
from mnnprep.repair.support.editor import Editor
from mnnprep.repair.support.opsets import INPUTS_SINCE
from mnnprep.repair.support.reading import Array, ModelView, producer, scalar, tensor

if TYPE_CHECKING:
    import onnx_ir as ir

    from mnnprep.repair.support.reading import Operand

NAME = "sequences"
READERS = ("SequenceAt", "ConcatFromSequence", "SequenceLength", "OptionalHasElement", "OptionalGetElement")


def _find(view: ModelView) -> Iterator[Match[bool]]:
    for node, opset in view.nodes("SequenceAt", "ConcatFromSequence", "SequenceLength"):
        parts = _length(node.inputs[0], view)
        able = parts is not None and (node.op_type != "SequenceAt" or scalar(node.inputs[1]) is not None)
        able = able and (
            node.op_type != "ConcatFromSequence"
            or opset >= INPUTS_SINCE["Unsqueeze"]
            or not node.attributes.get_int("new_axis", 0)
        )
        yield Match(at=node, opset=opset, repairable=able)
    for node, _ in view.nodes("OptionalHasElement"):
        there = _has_element(node)
        yield Match(at=node, found=there, repairable=there is not None)
    for node, _ in view.nodes("OptionalGetElement"):
        yield Match(at=node, repairable=_held(node.inputs[0]) is not None)


def _apply(editor: Editor, match: Match[bool]) -> bool:
    node = match.node
    if node.op_type == "OptionalHasElement":
        editor.replace(node, editor.constant(node, np.array(match.plan)))
    elif node.op_type == "OptionalGetElement":
        editor.replace(node, editor.add(node, "Identity", _held(node.inputs[0])))
    else:
        parts = _tensors(editor, node, node.inputs[0], match.opset)
        if node.op_type == "SequenceLength":
            editor.replace(node, editor.constant(node, np.array(len(parts), np.int64)))
        elif node.op_type == "SequenceAt":
            editor.replace(node, editor.add(node, "Identity", parts[int(scalar(node.inputs[1]) or 0)]))
        else:
            axis = node.attributes["axis"].value
            if node.attributes.get_int("new_axis", 0):
                parts = [Builder(editor, node, match.opset).unsqueeze(part, axis) for part in parts]
            editor.replace(node, editor.add(node, "Concat", *parts, axis=axis))
    return True


def _made_by(value: Operand) -> ir.Node | None:
    """The node that makes the sequence *value*; None if it comes from outside."""
    while (node := producer(value, "Identity")) is not None:
        value = node.inputs[0]
    return value.producer() if value is not None else None


def _length(value: Operand, view: ModelView) -> int | None:
    """How many tensors the sequence has; None if that is open."""
    node = _made_by(value)
    if node is None:
        return None
    if node.op_type == "SequenceEmpty":
        return 0
    if node.op_type == "SequenceConstruct":
        return len(node.inputs)
    if node.op_type in ("SequenceInsert", "SequenceErase"):
        before = _length(node.inputs[0], view)
        position = 2 if node.op_type == "SequenceInsert" else 1
        known = (
            len(node.inputs) <= position
            or node.inputs[position] is None
            or scalar(node.inputs[position]) is not None
        )
        return (
            None if before is None or not known else before + (1 if node.op_type == "SequenceInsert" else -1)
        )
    sizes = _sizes(node, view) if node.op_type == "SplitToSequence" else None
    return len(sizes) if sizes is not None else None


def _tensors(editor: Editor, before: ir.Node, value: Operand, opset: int) -> list[ir.Value]:
    """The tensors of a sequence, those of a SplitToSequence as the outputs of a Split."""
    node = _made_by(value)
    if node is None or node.op_type == "SequenceEmpty":
        return []
    if node.op_type == "SequenceConstruct":
        return [fed(node, index) for index in range(len(node.inputs))]
    if node.op_type in ("SequenceInsert", "SequenceErase"):
        parts = _tensors(editor, before, node.inputs[0], opset)
        position = 2 if node.op_type == "SequenceInsert" else 1
        given = len(node.inputs) > position and node.inputs[position] is not None
        place = int(scalar(node.inputs[position]) or 0) if given else len(parts) - (position == 1)
        return (
            [*parts[:place], fed(node, 1), *parts[place:]]
            if position == 2
            else [p for i, p in enumerate(parts) if i != place % len(parts)]
        )
    axis = node.attributes.get_int("axis", 0)
    sizes = _sizes(node, editor.view) or []
    parts = Builder(editor, before, opset).split(fed(node, 0), sizes, axis)
    if _split(node) is not None or node.attributes.get_int("keepdims", 1) != 0:
        return parts
    return [Builder(editor, before, opset).squeeze(part, axis) for part in parts]


def _sizes(node: ir.Node, view: ModelView) -> list[int] | None:
    """The sizes of the parts of a SplitToSequence."""
    dims = view.dims(node.inputs[0])
    given = len(node.inputs) > 1 and node.inputs[1] is not None
    split = _split(node)
    if split is not None and split.ndim:
        return [int(n) for n in split]
    whole = dims[node.attributes.get_int("axis", 0)] if dims is not None else None
    if not isinstance(whole, int) or (given and split is None):
        return None
    size = int(split) if split is not None else 1
    return [min(size, whole - start) for start in range(0, whole, size)]


def _split(node: ir.Node) -> Array | None:
    held = tensor(node.inputs[1]) if len(node.inputs) > 1 and node.inputs[1] is not None else None
    return held.numpy() if held is not None else None


def _held(value: Operand) -> Operand:
    """The tensor or sequence in an optional that is not empty; None if it is not known."""
    ir = require("onnx_ir")
    node = producer(value, "Optional")
    if node is not None:
        return node.inputs[0] if node.inputs else None
    return value if value is not None and isinstance(value.type, ir.TensorType | ir.SequenceType) else None


def _has_element(node: ir.Node) -> bool | None:
    """Whether an optional holds something; None if the caller decides."""
    if not node.inputs or node.inputs[0] is None:
        return False
    made = producer(node.inputs[0], "Optional")
    if made is not None:
        return bool(made.inputs)
    return True if _held(node.inputs[0]) is not None else None


RULE = Rule(
    name=NAME,
    severity="refused",
    operators=frozenset(READERS),
    find=_find,
    rewrite=Rewrite(apply=_apply, exact=True),
    preparation=True,
    hazard="MNN refuses most operators on sequences and optionals, and is right in some forms of the others",
    remedy="work on the tensors themselves: stack, split and index them",
)
