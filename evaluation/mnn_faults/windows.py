"""Pooling, convolution and resampling that MNN gets wrong."""

from __future__ import annotations

import numpy as np
from onnx import TensorProto

from evaluation.mnn_faults.fault import IMAGE, LONG, VOLUME, Fault, floats, one

WINDOWS = (
    Fault(
        "no strides, in two dimensions",
        "divides by zero",
        "strides of 1",
        "pool-strides",
        *one("MaxPool", IMAGE, kernel_shape=[2, 2]),
    ),
    Fault(
        "dilations",
        "does not read them",
        "windows with gaps",
        "pool-dilations",
        *one("MaxPool", IMAGE, kernel_shape=[2, 2], strides=[1, 1], dilations=[2, 2]),
    ),
    Fault(
        "three dimensions, a batch of 2",
        "pools the first of the batch alone",
        "pools every one",
        "pool-3d",
        *one("AveragePool", VOLUME, kernel_shape=[2, 2, 2], strides=[2, 2, 2], pads=[0] * 6),
    ),
    Fault(
        "ceil_mode=1 with a last window that begins in the padding",
        "counts it",
        "leaves it out",
        "pool-ceil",
        *one(
            "MaxPool",
            {"x": floats(1, 2, 4, 4)},
            kernel_shape=[1, 1],
            strides=[2, 2],
            ceil_mode=1,
            pads=[0, 0, 0, 0],
        ),
    ),
    Fault(
        "ceil_mode=1 in three dimensions",
        "does not read it",
        "a last window that is not whole",
        "pool-ceil",
        *one("MaxPool", VOLUME, kernel_shape=[3] * 3, strides=[2] * 3, pads=[0] * 6, ceil_mode=1),
    ),
    Fault(
        "the indices of padded windows",
        "values and indices that are not there",
        "those of the image",
        "pool-indices",
        *one(
            "MaxPool",
            {"x": floats(1, 1, 4, 4)},
            kernel_shape=[2, 2],
            strides=[2, 2],
            pads=[1] * 4,
            gives={"y": TensorProto.FLOAT, "i": LONG},
        ),
    ),
    Fault(
        "indices in three dimensions",
        "crashes",
        "the indices",
        "",
        *one(
            "MaxPool",
            VOLUME,
            kernel_shape=[2] * 3,
            strides=[2] * 3,
            pads=[0] * 6,
            gives={"y": TensorProto.FLOAT, "i": LONG},
        ),
    ),
    Fault(
        "uneven pads",
        "pads evenly",
        "these pads",
        "pool-auto-pad",
        *one("LpPool", {"x": floats(1, 2, 4, 4)}, kernel_shape=[2, 2], strides=[1, 1], pads=[1, 0, 0, 1]),
    ),
    Fault(
        "computed weights in three dimensions",
        "a size of 0",
        "the convolution",
        "",
        *one("Conv", {**VOLUME, "w": floats(3, 2, 2, 2, 2)}),
    ),
    Fault(
        "mode=linear in three dimensions",
        "crashes, or gives no output",
        "the trilinear interpolation",
        "",
        *one(
            "Resize",
            VOLUME,
            weights={"s": np.float32([1, 1, 2, 2, 2])},
            takes=["x", "", "s"],
            mode="linear",
        ),
    ),
    Fault(
        "nearest_mode=ceil, half_pixel",
        "rounds down",
        "rounds up",
        "resize-forms",
        *one(
            "Resize",
            IMAGE,
            weights={"s": np.float32([1, 1, 2, 2])},
            takes=["x", "", "s"],
            mode="nearest",
            nearest_mode="ceil",
        ),
    ),
    Fault(
        "auto_pad=SAME_LOWER",
        "pads as SAME_UPPER",
        "pads the lower end",
        "pool-auto-pad",
        *one("AveragePool", IMAGE, kernel_shape=[2, 2], strides=[1, 1], auto_pad="SAME_LOWER"),
    ),
    Fault(
        "one dimension, as an output",
        "a fourth dimension of size 1",
        "three dimensions",
        "conv1d-output",
        *one("Conv", {"x": floats(1, 2, 8)}, weights={"w": floats(3, 2, 3)}),
    ),
    Fault(
        "dilations in three dimensions",
        "does not read them",
        "a kernel with gaps",
        "conv3d-forms",
        *one("Conv", VOLUME, weights={"w": floats(3, 2, 2, 2, 2)}, dilations=[2, 2, 2]),
    ),
    Fault(
        "three dimensions",
        "a size of 0",
        "the transposed convolution",
        "conv3d-forms",
        *one("ConvTranspose", VOLUME, weights={"w": floats(2, 3, 2, 2, 2)}),
    ),
    Fault(
        "output_shape that makes the padding odd",
        "pads the opposite end",
        "the larger half at the beginning",
        "deconv-padding",
        *one(
            "ConvTranspose",
            {"x": floats(1, 2, 5, 5)},
            weights={"w": floats(2, 3, 3, 3)},
            strides=[2, 2],
            output_shape=[10, 10],
        ),
    ),
    Fault(
        "mode=cubic, half_pixel, growing",
        "other numbers",
        "the cubic interpolation",
        "resize-forms",
        *one(
            "Resize",
            IMAGE,
            weights={"s": np.float32([1, 1, 2, 2])},
            takes=["x", "", "s"],
            mode="cubic",
            coordinate_transformation_mode="half_pixel",
        ),
    ),
    Fault(
        "mode=bicubic",
        "other numbers",
        "the cubic interpolation",
        "grid-sample-forms",
        *one(
            "GridSample",
            {"x": floats(1, 2, 6, 6), "g": np.clip(floats(1, 3, 3, 2), -1, 1)},
            opset=16,
            mode="bicubic",
        ),
    ),
)
