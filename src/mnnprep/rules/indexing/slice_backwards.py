"""Slice with a negative step, in four dimensions or more.

Measured with MNN 3.6.1: a SIGABRT or SIGSEGV at run time, or other numbers; in up to three dimensions it is
right.  A Gather by the same indices is right.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from mnnprep.rules.editor import Editor
from mnnprep.rules.forms import backwards, integers
from mnnprep.rules.reading import Reading, tensor
from mnnprep.rules.rule import Place, Rewrite, Rule

RANK = 4
STEPS = 4  # the place of the steps among the inputs


def find(reading: Reading) -> Iterator[Place]:
    for node, _ in reading.nodes("Slice"):
        if (
            len(node.inputs) <= STEPS
            or node.inputs[STEPS] is None
            or (reading.rank(node.inputs[0]) or RANK) < RANK
        ):
            continue
        numbers = [_numbers(value) for value in node.inputs[1:]]
        steps = numbers[-1]
        if steps is not None and min(steps, default=0) < 0:
            plan = _plan(reading, node, numbers)
            yield Place(node=node, match=plan, repairable=plan is not None)


def apply(editor: Editor, place: Place) -> bool:
    node, value = place.node, place.node.inputs[0]
    for axis, cut in place.match:
        if isinstance(cut, list):
            value = editor.add(node, "Gather", value, integers(editor, node, *cut), axis=axis)
        elif cut is None:
            value = backwards(editor, node, value, axis, None)
        else:
            value = editor.add(
                node, "Slice", value, *[integers(editor, node, number) for number in (*cut[:2], axis, cut[2])]
            )
    editor.replace(node, value)
    return True


def _plan(
    reading: Reading, node: Any, numbers: list[list[int] | None]
) -> list[tuple[int, list[int] | tuple[int, int, int] | None]] | None:
    """What to do to each axis: take these indices, reverse it wholly (None), or slice it as before."""
    starts, ends, axes, steps = numbers
    dims = reading.dims(node.inputs[0])
    axes = list(range(len(starts or []))) if node.inputs[3] is None else axes
    if starts is None or ends is None or axes is None or steps is None or dims is None:
        return None
    plan: list[tuple[int, list[int] | tuple[int, int, int] | None]] = []
    for start, end, counted, step in zip(starts, ends, axes, steps, strict=True):
        axis = counted % len(dims)
        size = dims[axis]
        if step > 0:
            plan.append((axis, (start, end, step)))
        elif isinstance(size, int):
            plan.append((axis, _taken(size, start, end, step)))
        elif (start, step) == (-1, -1) and end < -(1 << 29):
            plan.append((axis, None))
        else:
            return None
    return plan


def _taken(size: int, start: int, end: int, step: int) -> list[int]:
    """The indices that ONNX's Slice takes with a negative step."""
    first = min(start + size if start < 0 else start, size - 1)
    last = max(end + size, -1) if end < 0 else end
    return list(range(first, last, step))


def _numbers(value: Any) -> list[int] | None:
    held = tensor(value)
    return [int(n) for n in held.numpy().reshape(-1)] if held is not None else None


RULE = Rule(
    name="slice-backwards",
    severity="crash",
    operators=frozenset({"Slice"}),
    find=find,
    rewrite=Rewrite(apply=apply, exact=True),
    hazard="MNN crashes on a Slice with a negative step in four dimensions or more, or gives other numbers",
    remedy="take the elements by their indices (index_select in place of flip)",
)
