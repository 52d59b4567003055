"""Pooling with ceil_mode=1 whose last window would begin in the padding.

ONNX leaves such a window out. Measured with MNN 3.6.1: it is counted.
"""

from __future__ import annotations

from collections.abc import Iterator

from mnnprep.rules.reading import Reading
from mnnprep.rules.rule import Place, Rule

OPS = ("MaxPool", "AveragePool", "LpPool")


def find(reading: Reading) -> Iterator[Place]:
    for node, _ in reading.nodes(*OPS):
        dims = reading.dims(node.inputs[0])
        if not node.attributes.get_int("ceil_mode", 0) or dims is None:
            continue
        kernel = node.attributes.get_ints("kernel_shape", ())
        strides = node.attributes.get_ints("strides", [1] * len(kernel))
        pads = node.attributes.get_ints("pads", [0] * (2 * len(kernel)))
        for size, k, stride, before, after in zip(dims[2:], kernel, strides, pads, pads[len(kernel) :], strict=False):
            if isinstance(size, int) and -((size + before + after - k) // -stride) * stride >= size + before:
                yield Place(node=node)
                break


RULE = Rule(
    name="pool-ceil", severity="wrong", operators=frozenset(OPS), find=find,
    hazard="MNN counts a last window that begins in the padding, which ONNX leaves out",
    remedy="pool with ceil_mode=0 and pads that say the same",
)  # fmt: skip
