"""ConvTranspose whose padding is not given as pads, but by ``output_shape`` or SAME_LOWER.

Measured with MNN 3.6.1: where the whole padding is odd, the larger half stands at the end; ONNX puts it at
the beginning, but for SAME_UPPER, which is right.  Written as the pads that ONNX's operator document derives
(ConvTranspose-22), which is exact.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, NamedTuple

from mnnprep.repair.rule import Match, Rewrite, Rule
from mnnprep.repair.support.building import Builder, attributes_of, static
from mnnprep.repair.support.editor import Editor
from mnnprep.repair.support.reading import ModelView

if TYPE_CHECKING:
    import onnx_ir as ir

    from mnnprep.repair.support.reading import Dims

OP = "ConvTranspose"
DERIVED = ("auto_pad", "output_shape", "pads", "output_padding")


class Padding(NamedTuple):
    """The pads (all beginnings, then all ends) and the sizes added at the ends."""

    pads: list[int]
    output: list[int]


class _Axis(NamedTuple):
    """One axis of the window; ``size`` is the input's, None if it is open, ``wanted`` that of the result."""

    size: int | None
    kernel: int
    stride: int
    dilation: int
    output: int
    wanted: int | None


def _find(view: ModelView) -> Iterator[Match[Padding]]:
    for node, opset in view.nodes(OP):
        auto = node.attributes.get_string("auto_pad", "NOTSET")
        shaped = bool(node.attributes.get_ints("output_shape", ()))
        if auto == "SAME_UPPER" or (not shaped and auto != "SAME_LOWER"):
            continue
        kernel = list(node.attributes.get_ints("kernel_shape", ())) or _sizes(view.dims(node.inputs[1]))
        if not kernel or len(kernel) == 3:  # three dimensions are for conv3d-forms
            continue
        found = _padding(node, kernel, view.dims(node.inputs[0]))
        detail = "output_shape" if shaped else "SAME_LOWER"
        if found is None or _is_odd(found):
            yield Match(at=node, opset=opset, detail=detail, found=found, repairable=found is not None)


def _sizes(dims: Dims | None) -> list[int]:
    return list(static((dims or ())[2:]) or ())


def _is_odd(found: Padding) -> bool:
    rank = len(found.pads) // 2
    return any(low != high for low, high in zip(found.pads[:rank], found.pads[rank:], strict=True))


def _padding(node: ir.Node, kernel: list[int], dims: Dims | None) -> Padding | None:
    """The padding of every axis; None if it depends on a size that is open, or ends within a stride."""
    rank = len(kernel)
    sizes = list((dims or ())[2:]) if dims is not None and len(dims) == rank + 2 else [None] * rank
    shape = node.attributes.get_ints("output_shape", ())[-rank:]
    wanted: list[int | None] = [*shape] or [None] * rank
    strides, dilations = (list(node.attributes.get_ints(n, [1] * rank)) for n in ("strides", "dilations"))
    outputs = list(node.attributes.get_ints("output_padding", [0] * rank))
    axes = [
        _Axis(size if isinstance(size, int) else None, *numbers)
        for size, *numbers in zip(sizes, kernel, strides, dilations, outputs, wanted, strict=True)
    ]
    known = [part for part in map(_part, axes) if part is not None]
    if len(known) < rank:
        return None
    lows, highs, added = zip(*known, strict=True)
    return Padding([*lows, *highs], list(added))


def _part(axis: _Axis) -> tuple[int, int, int] | None:
    """The padding at the beginning and at the end, and what is added to the size.

    Without a wanted size the result has that of the input times the stride, so that the padding is the same
    for any size.
    """
    reach = (axis.kernel - 1) * axis.dilation + 1 + axis.output
    if axis.wanted is None:
        total = max(reach - axis.stride, 0)
    elif axis.size is None:
        return None
    else:
        total = (axis.size - 1) * axis.stride + reach - axis.wanted
    if total < 0:  # the result goes on behind the last window
        output = axis.output - total
        return (0, 0, output) if output < max(axis.stride, axis.dilation) else None
    return total - total // 2, total // 2, axis.output


def _apply(editor: Editor, match: Match[Padding]) -> bool:
    node, found = match.node, match.plan
    build = Builder(editor, node, match.opset)
    kept = {name: value for name, value in attributes_of(node).items() if name not in DERIVED}
    build.replace_only(build.op(OP, *node.inputs, pads=found.pads, output_padding=found.output, **kept))
    return True


RULE = Rule(
    name="deconv-padding",
    severity="wrong",
    operators=frozenset({OP}),
    find=_find,
    rewrite=Rewrite(apply=_apply, exact=True),
    hazard="MNN puts an odd padding of a ConvTranspose with output_shape or SAME_LOWER at the wrong end",
    remedy="give the padding of the ConvTranspose as pads",
)
