"""Slice with a negative step, in four dimensions or more.

Measured with MNN 3.6.1: a SIGABRT or SIGSEGV at run time, or other numbers; in up to three dimensions it is
right.  A Gather by the same indices is right.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from mnnprep.repair.rule import Match, Rewrite, Rule
from mnnprep.repair.support.building import Builder, fed
from mnnprep.repair.support.editor import Editor
from mnnprep.repair.support.reading import ModelView, tensor

if TYPE_CHECKING:
    import onnx_ir as ir

    from mnnprep.repair.support.reading import Operand

# What to do to each axis: take these indices, reverse it wholly (None), or slice it as before.
Plan = list[tuple[int, list[int] | tuple[int, int, int] | None]]
RANK = 4
STEPS = 4  # the place of the steps among the inputs


def _find(view: ModelView) -> Iterator[Match[Plan | None]]:
    for node, opset in view.nodes("Slice"):
        if (
            len(node.inputs) <= STEPS
            or node.inputs[STEPS] is None
            or (view.rank(node.inputs[0]) or RANK) < RANK
        ):
            continue
        numbers = [_numbers(value) for value in node.inputs[1:]]
        steps = numbers[-1]
        if steps is not None and min(steps, default=0) < 0:
            plan = _plan(view, node, numbers)
            yield Match(at=node, opset=opset, found=plan, repairable=plan is not None)


def _apply(editor: Editor, match: Match[Plan | None]) -> bool:
    node, value = match.node, fed(match.node, 0)
    build = Builder(editor, node, match.opset)
    for axis, cut in match.plan or ():
        if isinstance(cut, list):
            value = build.op("Gather", value, build.ints(*cut), axis=axis)
        elif cut is None:
            value = build.backwards(value, axis, None)
        else:
            start, end, step = cut
            value = build.op("Slice", value, *[build.ints(number) for number in (start, end, axis, step)])
    build.replace_only(value)
    return True


def _plan(view: ModelView, node: ir.Node, numbers: list[list[int] | None]) -> Plan | None:
    starts, ends, axes, steps = numbers
    dims = view.dims(node.inputs[0])
    axes = list(range(len(starts or []))) if node.inputs[3] is None else axes
    if starts is None or ends is None or axes is None or steps is None or dims is None:
        return None
    plan: Plan = []
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


def _numbers(value: Operand) -> list[int] | None:
    held = tensor(value)
    return [int(n) for n in held.numpy().reshape(-1)] if held is not None else None


RULE = Rule(
    name="slice-backwards",
    severity="crash",
    operators=frozenset({"Slice"}),
    find=_find,
    rewrite=Rewrite(apply=_apply, exact=True),
    hazard="MNN crashes on a Slice with a negative step in four dimensions or more, or gives other numbers",
    remedy="take the elements by their indices (index_select instead of flip)",
)
