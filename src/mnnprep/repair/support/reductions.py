"""What a reduction of a graph computes: its operand, its axes, and whether they stay."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from mnnprep.repair.support.building import given, numbers
from mnnprep.repair.support.reading import tensor

if TYPE_CHECKING:
    import onnx_ir as ir


class Reduction(NamedTuple):
    """The ``value`` that is reduced, the axes (None: all), and whether they are kept."""

    value: ir.Value
    axes: tuple[int, ...] | None
    keep: bool


def reduction(node: ir.Node | None) -> Reduction | None:
    """What the reduction *node* computes.

    None if there is no such node, its axes are not known, or it reduces nothing (``noop_with_empty_axes``).
    """
    if node is None or node.inputs[0] is None:
        return None
    axes = node.attributes.get_ints("axes", ())
    if (computed := given(node, 1)) is not None:
        held = tensor(computed)
        if held is None:
            return None
        axes = numbers(held.numpy())
    if not axes and node.attributes.get_int("noop_with_empty_axes", False):
        return None
    keep = bool(node.attributes.get_int("keepdims", 1))
    return Reduction(node.inputs[0], tuple(axes) if axes else None, keep)
