"""The scale of a bias, as TFLite's integer kernels take it.

They add a bias as the integers that are stored, to sums of products whose step is the input's scale times the
weight's (TFLite's quantization specification).  A file may state another scale beside them: a converter that
trained with fake quantization writes that.  Whoever computes in real numbers needs the one that counts.
"""

from __future__ import annotations

import struct

import numpy as np

from mnnprep.formats.tflite.operators import OPERATORS
from mnnprep.wire.flatbuffer import Table, root

# the places of input, weight and bias among an operator's inputs
PLACES = {
    "CONV_2D": (0, 1, 2),
    "DEPTHWISE_CONV_2D": (0, 1, 2),
    "FULLY_CONNECTED": (0, 1, 2),
    "CONV_3D": (0, 1, 2),
    "TRANSPOSE_CONV": (2, 1, 3),
}
SCALE, QUANTIZATION = 2, 4  # fields of QuantizationParameters and Tensor


def with_real_scales(content: bytes) -> bytes:
    """The model *content* with the scale of every bias as the product of its input's and its weight's."""
    model, made = root(content), bytearray(content)
    codes = [max(code.integer(0, "b"), code.integer(3, "i")) for code in model.tables(1)]
    for graph in model.tables(2):
        tensors = graph.tables(0)
        for operator in graph.tables(3):
            number = codes[operator.integer(0, "I")]
            places = PLACES.get(OPERATORS[number] if 0 <= number < len(OPERATORS) else "")
            inputs = operator.integers(1, "i")
            if places is None or len(inputs) <= places[2] or inputs[places[2]] < 0:
                continue
            x, weight, bias = (tensors[inputs[place]].table(QUANTIZATION) for place in places)
            if x is not None and weight is not None and bias is not None:
                _write(made, bias, np.multiply(_scales(x), _scales(weight)))
    return bytes(made)


def _scales(quantization: Table) -> np.ndarray[tuple[int, ...], np.dtype[np.float64]]:
    return np.array(quantization.floats(SCALE), np.float64)


def _write(
    content: bytearray, bias: Table, scales: np.ndarray[tuple[int, ...], np.dtype[np.float64]]
) -> None:
    first, count = bias.extent(SCALE)
    if not count or scales.size not in (1, count):
        return
    struct.pack_into(f"<{count}f", content, first, *np.broadcast_to(scales, (count,)).tolist())
