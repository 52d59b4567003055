"""The windows of a pooling, and pooling written out by strided slices.

Sizes as ONNX's operator documents give them: with ``ceil_mode`` a last window that would begin in the padding
behind is left out.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import reduce
from typing import TYPE_CHECKING

import numpy as np

from mnnprep.repair.support.building import TOO_FAR, Builder
from mnnprep.repair.support.reading import Array, Dims

if TYPE_CHECKING:
    import onnx_ir as ir

    from mnnprep.repair.support.reading import Operand

MOST = 320  # slices that a pooling may become


@dataclass(frozen=True)
class Axis:
    """One pooled axis: ``size`` is None if it is not fixed.

    ``after`` is the padding that the last window needs, ``declared`` the node's own.
    """

    size: int | None
    kernel: int
    stride: int
    dilation: int
    before: int
    after: int
    declared: int
    windows: int | None

    def counts(self, *, padding: bool) -> list[int]:
        """How many places of each window are counted; ``padding``: those of the declared padding too."""
        assert self.size is not None and self.windows is not None
        low, high = (-self.before, self.size + self.declared) if padding else (0, self.size)
        starts = [index * self.stride - self.before for index in range(self.windows)]
        return [sum(low <= start + k * self.dilation < high for k in range(self.kernel)) for start in starts]


def axes_of(node: ir.Node, dims: Dims | None) -> list[Axis] | None:
    """Return the pooled axes of *node*, whose input has *dims*.

    None if they depend on a size that is not fixed.
    """
    kernel = node.attributes.get_ints("kernel_shape", ())
    rank = len(kernel)
    sizes = list(dims[2:]) if dims is not None and len(dims) == rank + 2 else [None] * rank
    strides, dilations = (
        list(node.attributes.get_ints(name, [1] * rank)) for name in ("strides", "dilations")
    )
    pads = list(node.attributes.get_ints("pads", [0] * 2 * rank))
    auto, ceil = (
        node.attributes.get_string("auto_pad", "NOTSET"),
        bool(node.attributes.get_int("ceil_mode", 0)),
    )
    found = []
    for size, k, stride, dilation, before, after in zip(
        sizes, kernel, strides, dilations, pads[:rank], pads[rank:], strict=True
    ):
        axis = _axis(
            size if isinstance(size, int) else None, k, stride, dilation, (before, after), auto, ceil=ceil
        )
        if axis is None:
            return None
        found.append(axis)
    return found


def _axis(
    size: int | None, kernel: int, stride: int, dilation: int, pads: tuple[int, int], auto: str, *, ceil: bool
) -> Axis | None:
    before, after = (0, 0) if auto == "VALID" else pads
    reach = (kernel - 1) * dilation + 1
    if size is None:
        fixed = not ceil and auto in ("NOTSET", "VALID", "")
        return Axis(None, kernel, stride, dilation, before, after, after, None) if fixed else None
    if auto in ("SAME_UPPER", "SAME_LOWER"):
        windows = -(-size // stride)
        total = max((windows - 1) * stride + reach - size, 0)
        before = total // 2 if auto == "SAME_UPPER" else total - total // 2
        return Axis(size, kernel, stride, dilation, before, total - before, total - before, windows)
    room = size + before + after - reach
    windows = (-(-room // stride) if ceil else room // stride) + 1
    if ceil and (windows - 1) * stride >= size + before:
        windows -= 1
    needed = (windows - 1) * stride + reach - size - before
    return Axis(size, kernel, stride, dilation, before, max(needed, 0), after, windows)


def cheap(axes: list[Axis]) -> bool:
    """Whether the pooling becomes at most MOST slices."""
    return sum(axis.kernel for axis in axes) <= MOST


def pooled(
    build: Builder, axes: list[Axis], x: ir.Value, op_type: str, fill: float, dtype: str = "FLOAT"
) -> ir.Value:
    """Return *x* padded with *fill*, and *op_type* (Max or Add) over the windows.

    It does one axis after the other. Needs opset 10.
    """
    if any(axis.before or axis.after for axis in axes):
        x = build.pad(
            x, [0, 0, *(axis.before for axis in axes)], [0, 0, *(axis.after for axis in axes)], fill, dtype
        )
    for number, axis in enumerate(axes, 2):
        x = reduce(
            lambda a, b: build.op(op_type, a, b),
            [_shifted(build, x, number, axis, k) for k in range(axis.kernel)],
        )
    return x


def _shifted(build: Builder, x: Operand, number: int, axis: Axis, k: int) -> ir.Value:
    """The place *k* of every window."""
    start, left = k * axis.dilation, (axis.kernel - 1 - k) * axis.dilation
    if axis.windows is not None:
        return build.slice(x, number, start, start + (axis.windows - 1) * axis.stride + 1, axis.stride)
    return build.slice(x, number, start, -left if left else TOO_FAR, axis.stride)


def highest(
    build: Builder, axes: list[Axis], x: ir.Value, index: ir.Value, fill: float, dtype: str
) -> tuple[ir.Value, ir.Value]:
    """Return the largest of each window of *x*, and the entry of *index* that stands there.

    The sizes of *index* broadcast. Of equals the first in row-major order.
    """
    if any(axis.before or axis.after for axis in axes):
        pads = [0, 0, *(axis.before for axis in axes)], [0, 0, *(axis.after for axis in axes)]
        x, index = build.pad(x, *pads, fill, dtype), build.pad(index, *pads, 0, "INT32")
    for number, axis in reversed(list(enumerate(axes, 2))):
        places = [
            (_shifted(build, x, number, axis, k), _shifted(build, index, number, axis, k))
            for k in range(axis.kernel)
        ]
        x, index = places[0]
        for value, place in places[1:]:
            index = build.op("Where", build.op("Greater", value, x), place, index)
            x = build.op("Max", x, value)
    return x, index


def counted(axes: list[Axis], *, padding: bool) -> Array | None:
    """Count the places of each window of an average, in a shape that broadcasts.

    One number if no size matters; None if unknown.
    """
    if all(padding or not (axis.before or axis.after) for axis in axes) and all(
        axis.after <= axis.declared for axis in axes
    ):
        return np.array(np.prod([axis.kernel for axis in axes]), np.float32)
    if any(axis.size is None for axis in axes):
        return None
    rows = [np.array(axis.counts(padding=padding), np.float32) for axis in axes]
    return reduce(np.multiply.outer, rows)[None, None]
