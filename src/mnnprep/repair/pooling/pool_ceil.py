"""Pooling with ceil_mode=1 whose last window would begin in the padding, or over three dimensions.

ONNX leaves such a window out. Measured with MNN 3.6.1: it is counted. Over three dimensions ceil_mode is not
read: a last window that is not whole is missing.

The windows are written out as strided slices.  A maximum has the same bits; an average or a norm is
numerically equal.
"""

from __future__ import annotations

from collections.abc import Iterator

from mnnprep.repair.rule import Match, Rewrite, Rule
from mnnprep.repair.support.pool_written_out import Windows, match_of, write_out
from mnnprep.repair.support.reading import ModelView

OPS = ("MaxPool", "AveragePool", "LpPool")


def _find(view: ModelView) -> Iterator[Match[Windows]]:
    for node, opset in view.nodes(*OPS):
        dims = view.dims(node.inputs[0])
        if not node.attributes.get_int("ceil_mode", 0) or dims is None:
            continue
        kernel = node.attributes.get_ints("kernel_shape", ())
        strides = node.attributes.get_ints("strides", [1] * len(kernel))
        pads = node.attributes.get_ints("pads", [0] * (2 * len(kernel)))
        for size, k, stride, before, after in zip(
            dims[2:], kernel, strides, pads, pads[len(kernel) :], strict=False
        ):
            if isinstance(size, int) and _goes_wrong(size, k, stride, before, after, len(kernel)):
                yield match_of(node, opset, view)
                break


def _goes_wrong(size: int, kernel: int, stride: int, before: int, after: int, axes: int) -> bool:
    room = size + before + after - kernel
    begins_in_padding = -(room // -stride) * stride >= size + before
    return begins_in_padding or (axes == 3 and room % stride != 0)


RULE = Rule(
    name="pool-ceil",
    severity="wrong",
    operators=frozenset(OPS),
    find=_find,
    rewrite=Rewrite(apply=write_out, exact=False),
    hazard=(
        "MNN counts a last window that begins in the padding, which ONNX leaves out, and does not read"
        " ceil_mode in three dimensions"
    ),
    remedy="pool with ceil_mode=0 and equivalent pads",
)
