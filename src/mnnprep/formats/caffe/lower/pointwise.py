"""Layers that compute each element from those at its place.

Activations, arithmetic, normalization by statistics.

Format facts: caffe.proto (defaults), and the formula at the head of each layer's .hpp file.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np

from mnnprep.formats.caffe.blobs import bottom_of_scale, statistics
from mnnprep.formats.caffe.geometry import axis_of
from mnnprep.formats.caffe.lower.builder import Lowering, Value


def relu(low: Lowering) -> list[Value]:
    """Lower ReLU, with a ``negative_slope`` to LeakyRelu."""
    slope = low.layer.param("relu_param").number("negative_slope")
    return [low.add.node("LeakyRelu", low.bottom, alpha=slope) if slope else low.add.node("Relu", low.bottom)]


def relu6(low: Lowering) -> list[Value]:
    """Lower ReLU6 to Clip between 0 and 6."""
    return [low.add.node("Clip", low.bottom, low.add.scalar(0), low.add.scalar(6))]


def prelu(low: Lowering) -> list[Value]:
    """Lower PReLU; MNN reads a slope per channel only, so a shared one is repeated."""
    channels = low.shape[1]
    low.blobs = [np.resize(low.blobs[0], (channels,))]
    return [low.add.node("PRelu", low.bottom, low.blob(0, (channels, *[1] * (len(low.shape) - 2))))]


def elu(low: Lowering) -> list[Value]:
    """Lower ELU; ``alpha`` is 1 by default."""
    return [low.add.node("Elu", low.bottom, alpha=low.layer.param("elu_param").number("alpha", 1.0))]


def unary(operator: str) -> Callable[[Lowering], list[Value]]:
    """Return the rule that lowers a layer to one ONNX operator without parameters."""

    def rule(low: Lowering) -> list[Value]:
        return [low.add.node(operator, low.bottom)]

    return rule


def clip(low: Lowering) -> list[Value]:
    """Lower Clip, its bounds as inputs."""
    param = low.layer.param("clip_param")
    return [
        low.add.node(
            "Clip", low.bottom, low.add.scalar(param.number("min")), low.add.scalar(param.number("max"))
        )
    ]


def power(low: Lowering) -> list[Value]:
    """Lower Power: ``(shift + scale * x) ^ power``."""
    param = low.layer.param("power_param")
    value = low.affine(low.bottom, param.number("scale", 1.0), param.number("shift"))
    exponent = param.number("power", 1.0)
    if exponent != 1.0:
        value = low.add.node("Pow", value, low.add.scalar(exponent))
    return [low.add.node("Identity", value) if value is low.bottom else value]


def exp(low: Lowering) -> list[Value]:
    """Lower Exp: ``base ^ (shift + scale * x)``; a base of -1 is e."""
    param = low.layer.param("exp_param")
    base = param.number("base", -1.0)
    factor = 1.0 if base == -1.0 else math.log(base)
    return [
        low.add.node(
            "Exp", low.affine(low.bottom, param.number("scale", 1.0) * factor, param.number("shift") * factor)
        )
    ]


def log(low: Lowering) -> list[Value]:
    """Lower Log: the logarithm of ``shift + scale * x`` to the base; a base of -1 is e."""
    param = low.layer.param("log_param")
    base = param.number("base", -1.0)
    value = low.add.node("Log", low.affine(low.bottom, param.number("scale", 1.0), param.number("shift")))
    return [low.affine(value, 1.0 if base == -1.0 else 1.0 / math.log(base), 0.0)]


_ELTWISE = {"PROD": "Mul", "0": "Mul", "SUM": "Add", "1": "Add", "MAX": "Max", "2": "Max"}


def eltwise(low: Lowering) -> list[Value]:
    """Lower Eltwise: a product, a maximum, or a sum weighted by ``coeff``."""
    param = low.layer.param("eltwise_param")
    operator = _ELTWISE[param.text("operation", "SUM")]
    factors = param.numbers("coeff") or [1.0] * len(low.bottoms)
    values = [
        low.affine(v, f, 0.0) if operator == "Add" else v for v, f in zip(low.bottoms, factors, strict=True)
    ]
    total = values[0]
    for value in values[1:]:
        total = low.add.node(operator, total, value)
    return [total if len(values) > 1 else low.add.node("Identity", total)]


def _broadcast(low: Lowering, part: tuple[int, ...]) -> list[int]:
    """The shape in which numbers for *part* of the bottom's axes meet all of them."""
    group = low.layer.param("scale_param" if low.layer.type == "Scale" else "bias_param")
    axis = axis_of(group.integer("axis", 1), len(low.shape))
    return [*part, *[1] * (len(low.shape) - axis - len(part))]


def scale(low: Lowering) -> list[Value]:
    """Lower Scale: the bottom times a blob or a second bottom, plus an optional bias."""
    param = low.layer.param("scale_param")
    if len(low.bottoms) > 1:
        factor = low.add.node("Reshape", low.bottoms[1], low.add.integers(*_other(low)))
        value = low.add.node("Mul", low.bottom, factor)
        return [
            low.add.node("Add", value, low.blob(0, _broadcast(low, low.blobs[0].shape)))
            if param.flag("bias_term", False)
            else value
        ]
    shape = _broadcast(low, bottom_of_scale(low.layer, low.shape))
    value = low.add.node("Mul", low.bottom, low.blob(0, shape))
    return [low.add.node("Add", value, low.blob(1, shape)) if param.flag("bias_term", False) else value]


def bias(low: Lowering) -> list[Value]:
    """Lower Bias: the bottom plus a blob or a second bottom."""
    if len(low.bottoms) > 1:
        return [
            low.add.node(
                "Add", low.bottom, low.add.node("Reshape", low.bottoms[1], low.add.integers(*_other(low)))
            )
        ]
    return [
        low.add.node("Add", low.bottom, low.blob(0, _broadcast(low, bottom_of_scale(low.layer, low.shape))))
    ]


def _other(low: Lowering) -> list[int]:
    """The second bottom's sizes, with ones behind them; its first axis keeps whatever size it has."""
    shape = _broadcast(low, low.shapes[1])
    return [0, *shape[1:]] if len(low.shapes[1]) > 1 else shape


def batch_norm(low: Lowering) -> list[Value]:
    """Lower BatchNorm: ``(x - mean) / sqrt(variance + eps)``, by the stored statistics."""
    mean, variance = statistics(low.blobs)
    low.blobs = [mean, variance]
    one, zero = np.ones_like(mean), np.zeros_like(mean)
    eps = low.layer.param("batch_norm_param").number("eps", 1e-5)
    inputs = (low.bottom, low.add.constant(one), low.add.constant(zero), low.blob(0), low.blob(1))
    return [low.add.node("BatchNormalization", *inputs, epsilon=eps)]


def normalize(low: Lowering) -> list[Value]:
    """Lower Normalize: ``x / sqrt(sum of x^2 + eps)``, times the stored scale.

    The sum is over the channels, or over channels and places.
    """
    param = low.layer.param("norm_param")
    axes = [1, 2, 3] if param.flag("across_spatial", True) else [1]
    total = low.add.node(
        "ReduceSum", low.add.node("Mul", low.bottom, low.bottom), low.add.integers(*axes), keepdims=1
    )
    length = low.add.node("Sqrt", low.affine(total, 1.0, param.number("eps", 1e-10)))
    scaled = low.blob(0, (1,) if param.flag("channel_shared", True) else (low.shape[1], 1, 1))
    return [low.add.node("Mul", low.add.node("Div", low.bottom, length), scaled)]


def softmax(low: Lowering) -> list[Value]:
    """Lower Softmax along its axis (1 by default)."""
    return [
        low.add.node(
            "Softmax",
            low.bottom,
            axis=axis_of(low.layer.param("softmax_param").integer("axis", 1), len(low.shape)),
        )
    ]


def lrn(low: Lowering) -> list[Value]:
    """Lower LRN: ``x / (k + alpha / n * sum of squares) ^ beta``.

    The sum is over neighbouring channels, or over a square of places (then k is 1).
    """
    param = low.layer.param("lrn_param")
    size, alpha, beta, k = (
        param.integer("local_size", 5),
        param.number("alpha", 1.0),
        param.number("beta", 0.75),
        param.number("k", 1.0),
    )
    if param.text("norm_region", "ACROSS_CHANNELS") in ("ACROSS_CHANNELS", "0"):
        return [low.add.node("LRN", low.bottom, size=size, alpha=alpha, beta=beta, bias=k)]
    pads = [(size - 1) // 2] * 4
    squares = low.add.node("Mul", low.bottom, low.bottom)
    mean = low.add.node(
        "AveragePool", squares, kernel_shape=[size, size], strides=[1, 1], pads=pads, count_include_pad=1
    )
    return [
        low.add.node(
            "Div", low.bottom, low.add.node("Pow", low.affine(mean, alpha, 1.0), low.add.scalar(beta))
        )
    ]
