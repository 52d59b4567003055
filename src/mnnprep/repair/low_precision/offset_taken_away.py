"""An offset that is added and taken away again.

Precision ``low`` on ARM64 CPUs with half-precision arithmetic keeps 11 bits of the sum, and so little of what
the offset is added to.  Without the offset, float32 loses less, too; the last bits differ.  A sum so large
that float32 itself rounds by more than the tolerance is left alone: that may be what it is for (a magic
number that rounds to integers).
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from mnnprep.repair.rule import Match, Rewrite, Rule
from mnnprep.repair.support.building import Builder, static
from mnnprep.repair.support.editor import Editor
from mnnprep.repair.support.reading import ModelView, operands, producer, tensor

if TYPE_CHECKING:
    import onnx_ir as ir

    from mnnprep.repair.support.reading import Operand

LOST = 16  # times as large as what is left of it, a sum has 42 dB in half precision
LARGEST = 2.0**20
TOLERANCE = 1e-4  # of the largest result; float32 rounds the sum by no more


class Offset(NamedTuple):
    """What the offset is added to, and the other one if it is taken from another sum."""

    value: ir.Value
    less: ir.Value | None = None


def _find(view: ModelView) -> Iterator[Match[Offset]]:
    for node, opset in view.nodes("Sub", "Add"):
        for found, total in _forms(node):
            values = (found.value, *([found.less] if found.less is not None else []))
            if _lost(total, node.outputs[0], view) and _same_sizes(values, node.outputs[0], view):
                yield Match(at=node, opset=opset, found=found)
                break


def _forms(node: ir.Node) -> Iterator[tuple[Offset, ir.Value]]:
    """(x + c) - c, (x - c) + c and (x + c) - (y + c), each with the sum inside."""
    pairs = operands(node) if node.op_type == "Add" else (tuple(node.inputs),)
    for total, offset in pairs:
        inner = producer(total, "Add" if node.op_type == "Sub" else "Sub")
        if inner is None or total is None:
            continue
        terms = operands(inner) if inner.op_type == "Add" else (tuple(inner.inputs),)
        for value, added in terms:
            if value is not None and _equal(added, offset):
                yield Offset(value), total
            other = producer(offset, "Add") if node.op_type == "Sub" else None
            for less, again in operands(other) if other is not None else ():
                if value is not None and less is not None and _equal(added, again):
                    yield Offset(value, less), total


def _equal(one: Operand, other: Operand) -> bool:
    if one is None or other is None:
        return False
    held, again = tensor(one), tensor(other)
    if one is other or held is None or again is None:
        return one is other
    return bool(np.array_equal(held.numpy(), again.numpy()))


def _lost(total: ir.Value, result: ir.Value, view: ModelView) -> bool:
    """Whether half precision loses the result in the sum, and float32 does not."""
    inside, left = view.magnitude(total), view.magnitude(result)
    if inside is None or left is None or not 0 < left.largest * LOST < inside.largest < LARGEST:
        return False
    half_unit = 2.0 ** (math.frexp(inside.largest)[1] - 25)
    return half_unit <= TOLERANCE * left.largest


def _same_sizes(values: tuple[ir.Value, ...], result: ir.Value, view: ModelView) -> bool:
    """Whether what is left has the sizes of the result without the offset, which may have made it larger."""
    wanted = static(view.dims(result))
    sizes = [static(view.dims(value)) for value in values]
    if wanted is None or any(size is None for size in sizes):
        return False
    return np.broadcast_shapes(*(size for size in sizes if size is not None)) == wanted


def _apply(editor: Editor, match: Match[Offset]) -> bool:
    build, (value, less) = Builder(editor, match.node, match.opset), match.plan
    build.replace(build.op("Sub", value, less) if less is not None else value)
    return True


RULE = Rule(
    name="offset-taken-away",
    severity="narrowed",
    target="low",
    operators=frozenset({"Sub", "Add"}),
    find=_find,
    rewrite=Rewrite(apply=_apply, exact=False),
    hazard="half precision keeps little of a number once a large offset was added to it",
    remedy="leave the offset out where it is taken away again",
)
