"""MatMulNBits: a product with a weight of 2, 4 or 8 bits in blocks, each with its scale and zero point.

The weight is given as ``uint8[N, blocks, block_size * bits / 8]``, the first number in the low bits; scales
and zero points (packed alike) are one a block of a row.  onnxruntime multiplies with ``(q - zero) * scale``,
the zero point being 2^(bits - 1) if none is given.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from mnnprep.repair.support.fused_bodies import Body, named
from mnnprep.repair.support.reading import Array, ModelView, tensor

if TYPE_CHECKING:
    import onnx_ir as ir

BITS = (2, 4, 8)


def unpacked(node: ir.Node, view: ModelView) -> Body | None:
    """The product with the weight in float32; None if the weight is computed or reordered."""
    get = node.attributes.get_int
    bits, rows, columns, block = get("bits", 4), get("N"), get("K"), get("block_size")
    given = [*node.inputs, *[None] * 6]
    held = [tensor(value) if value is not None else None for value in given[1:4]]
    if (
        bits not in BITS
        or held[0] is None
        or held[1] is None
        or given[4] is not None
        or (given[3] is not None and held[2] is None)
    ):
        return None
    scales = held[1].numpy().astype(np.float32).reshape(rows, -1)
    blocks = scales.shape[1]
    numbers = _numbers(held[0].numpy().reshape(rows, blocks, -1), bits)[:, :, :block]
    zero: Array = np.full((rows, blocks), 1 << (bits - 1), np.float32)
    if held[2] is not None:
        points = held[2].numpy()
        zero = (
            points.reshape(rows, blocks).astype(np.float32)
            if points.dtype.kind == "f"
            else _numbers(points.reshape(rows, -1), bits)[:, :blocks]
        )
    weight = ((numbers - zero[:, :, None]) * scales[:, :, None]).reshape(rows, -1)[:, :columns]
    inputs = named(node, "a", "_b", "_scales", "_zeros", "_index", "bias")
    lines = (
        "product = MatMul(a, weight)\ny = Add(product, bias)" if "bias" in inputs else "y = MatMul(a, weight)"
    )
    used = {name: value for name, value in inputs.items() if not name.startswith("_")}
    return Body(lines, ("y",), used, {"weight": np.ascontiguousarray(weight.T)})


def _numbers(packed: Array, bits: int) -> Array:
    """The numbers of *bits* bits in the last axis of bytes, in float32."""
    count = 8 // bits
    parts = np.stack([(packed >> (bits * place)) & ((1 << bits) - 1) for place in range(count)], axis=-1)
    result: Array = parts.reshape(*packed.shape[:-1], -1).astype(np.float32)
    return result
