"""Layers over height and width: convolutions, pooling, crops and resizing.

Format facts: pooling_layer.cpp (an average divides by the window inside the padded image, cut off at its far
edge).
"""

from __future__ import annotations

import numpy as np

from mnnprep.formats.caffe.geometry import Window, crop_offsets, interpolated, window
from mnnprep.formats.caffe.lower.builder import Array, Lowering, Value


def convolution(low: Lowering) -> list[Value]:
    """Lower Convolution, Deconvolution and depthwise convolutions."""
    param, w = low.layer.param("convolution_param"), window(low.layer, "convolution_param")
    group = param.integer("group", 1) if low.layer.type in ("Convolution", "Deconvolution") else low.shape[1]
    inputs = [low.bottom, low.blob(0), *([low.blob(1)] if len(low.blobs) > 1 else [])]
    operator = "ConvTranspose" if low.layer.type == "Deconvolution" else "Conv"
    attributes = {
        "kernel_shape": list(w.kernel),
        "strides": list(w.stride),
        "pads": [*w.pad, *w.pad],
        "dilations": list(w.dilation),
        "group": group,
    }
    return [low.add.node(operator, *inputs, **attributes)]


def pooling(low: Lowering) -> list[Value]:
    """Lower Pooling, maximum or average, global or by windows."""
    param = low.layer.param("pooling_param")
    average = param.text("pool", "MAX") in ("AVE", "1")
    if param.flag("global_pooling", False):
        return [low.add.node("GlobalAveragePool" if average else "GlobalMaxPool", low.bottom)]
    w = window(low.layer, "pooling_param")
    sizes, made = low.shape[2:], low.tops[0][2:]
    over = [
        (n - 1) * s + k - (x + 2 * p)
        for x, n, k, s, p in zip(sizes, made, w.kernel, w.stride, w.pad, strict=True)
    ]
    floor = param.text("round_mode") in ("FLOOR", "1") or param.flag("ceil_mode", True) is False
    rounds_up = not floor and (low.dynamic or any(o > 0 for o in over))
    attributes = {
        "kernel_shape": list(w.kernel),
        "strides": list(w.stride),
        "pads": [*w.pad, *w.pad],
        "ceil_mode": int(rounds_up),
    }
    if not average:
        return [low.add.node("MaxPool", low.bottom, **attributes)]
    if rounds_up and not low.dynamic:
        return [_average_cut_off(low, w, over)]
    return [low.add.node("AveragePool", low.bottom, count_include_pad=1, **attributes)]


def _average_cut_off(low: Lowering, w: Window, over: list[int]) -> Value:
    """Lower an average whose last windows reach past the padded image.

    There are zeros there, and the sum is divided by the part inside.
    """
    pads = [0, 0, *w.pad, 0, 0, *(p + max(o, 0) for p, o in zip(w.pad, over, strict=True))]
    padded = low.add.node("Pad", low.bottom, low.add.integers(*pads), low.add.scalar(0))
    mean = low.add.node(
        "AveragePool", padded, kernel_shape=list(w.kernel), strides=list(w.stride), pads=[0, 0, 0, 0]
    )
    return low.add.node("Mul", mean, low.add.constant(_share(low, w)))


def _share(low: Lowering, w: Window) -> Array:
    """How much larger a full window is than its part inside the padded image, at every place."""
    factors = []
    for size, made, kernel, stride, pad in zip(
        low.shape[2:], low.tops[0][2:], w.kernel, w.stride, w.pad, strict=True
    ):
        starts = np.arange(made) * stride - pad
        factors.append(kernel / (np.minimum(starts + kernel, size + pad) - starts))
    return np.asarray(np.outer(factors[0], factors[1]), np.float32)


def crop(low: Lowering) -> list[Value]:
    """Lower Crop to Slice, with the sizes of the second bottom."""
    rank = len(low.shape)
    axis, offsets = crop_offsets(low.layer, rank)
    axes = low.add.integers(*range(axis, rank))
    if low.dynamic:
        sizes = low.add.node(
            "Slice",
            low.add.node("Shape", low.bottoms[1]),
            low.add.integers(axis),
            low.add.integers(rank),
            low.add.integers(0),
        )
        ends = low.add.node("Add", sizes, low.add.integers(*offsets))
    else:
        ends = low.add.integers(*(o + size for o, size in zip(offsets, low.tops[0][axis:], strict=True)))
    return [low.add.node("Slice", low.bottom, low.add.integers(*offsets), ends, axes)]


def resize(low: Lowering) -> list[Value]:
    """Interp: bilinear with the corners aligned; Upsample: the nearest, by a whole factor."""
    height, width = interpolated(low.layer, low.shape)
    if low.layer.type == "Upsample":
        scales = low.add.constant(np.array([1, 1, height / low.shape[2], width / low.shape[3]], np.float32))
        return [
            low.add.node(
                "Resize",
                low.bottom,
                None,
                scales,
                mode="nearest",
                coordinate_transformation_mode="asymmetric",
                nearest_mode="floor",
            )
        ]
    param = low.layer.param("interp_param")
    value = low.bottom
    before, after = -param.integer("pad_beg"), -param.integer("pad_end")
    if before or after:
        ends = low.add.integers(low.shape[2] - after, low.shape[3] - after)
        value = low.add.node("Slice", value, low.add.integers(before, before), ends, low.add.integers(2, 3))
    sizes = low.add.integers(*low.shape[:2], height, width)
    return [
        low.add.node(
            "Resize", value, None, None, sizes, mode="linear", coordinate_transformation_mode="align_corners"
        )
    ]
