"""Whether a caffemodel belongs to a prototxt.

Every learnable layer has its blobs, in the shapes its definition implies.

Format facts: of each layer the LayerSetUp of its .cpp file; batch_norm_layer.cpp (mean and variance are sums,
divided by the third blob, which 0 makes 0).
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np

from mnnprep.errors import RefusedError
from mnnprep.evidence import catalog
from mnnprep.evidence.check import Check
from mnnprep.formats.caffe.caffemodel import Floats, WeightLayer, Weights, merged
from mnnprep.formats.caffe.geometry import axis_of, layer_shapes, window
from mnnprep.formats.caffe.net import Layer, Net, Shape
from mnnprep.text import listed

SHOWN = 12


def _convolution(layer: Layer, bottom: Shape) -> list[Shape]:
    param, w = layer.param("convolution_param"), window(layer, "convolution_param")
    outputs, channels = param.integer("num_output"), bottom[1]
    group = param.integer("group", 1) if layer.type in ("Convolution", "Deconvolution") else channels
    for count, what in ((channels, "channels"), (outputs, "outputs")):
        if group < 1 or outputs < 1 or count % group:
            raise RefusedError(
                f"{layer.name} ({layer.type}) has groups that do not divide its {what}",
                seen=f"{count} {what} in {group} groups",
                next="correct num_output and group",
            )
    first, second = (
        (channels, outputs // group) if layer.type == "Deconvolution" else (outputs, channels // group)
    )
    return [(first, second, *w.kernel), *([(outputs,)] if param.flag("bias_term", True) else [])]


def _inner_product(layer: Layer, bottom: Shape) -> list[Shape]:
    param = layer.param("inner_product_param")
    outputs, inputs = (
        param.integer("num_output"),
        math.prod(bottom[axis_of(param.integer("axis", 1), len(bottom)) :]),
    )
    weight = (inputs, outputs) if param.flag("transpose", False) else (outputs, inputs)
    return [weight, *([(outputs,)] if param.flag("bias_term", True) else [])]


def _scale(layer: Layer, bottom: Shape) -> list[Shape]:
    if len(layer.bottoms) > 1:
        return [bottom_of_scale(layer, bottom)] if layer.param("scale_param").flag("bias_term", False) else []
    group = "scale_param" if layer.type == "Scale" else "bias_param"
    shape = bottom_of_scale(layer, bottom)
    return [shape] * (2 if layer.param(group).flag("bias_term", False) else 1)


def bottom_of_scale(layer: Layer, bottom: Shape) -> Shape:
    """The part of the bottom's shape that a Scale or Bias has numbers for."""
    param = layer.param("scale_param" if layer.type == "Scale" else "bias_param")
    axis, count = axis_of(param.integer("axis", 1), len(bottom)), param.integer("num_axes", 1)
    return bottom[axis:] if count < 0 else bottom[axis : axis + count]


def _prelu(layer: Layer, bottom: Shape) -> list[Shape]:
    return [(1,) if layer.param("prelu_param").flag("channel_shared", False) else (bottom[1],)]


def _normalize(layer: Layer, bottom: Shape) -> list[Shape]:
    return [(1,) if layer.param("norm_param").flag("channel_shared", True) else (bottom[1],)]


EXPECTED: dict[str, Callable[[Layer, Shape], list[Shape]]] = {
    "Convolution": _convolution,
    "ConvolutionDepthwise": _convolution,
    "DepthwiseConvolution": _convolution,
    "Deconvolution": _convolution,
    "InnerProduct": _inner_product,
    "Scale": _scale,
    "Bias": _scale,
    "PReLU": _prelu,
    "Normalize": _normalize,
    "BatchNorm": lambda layer, bottom: [(bottom[1],), (bottom[1],), (1,)],
}


def match_layers(net: Net, weights: Weights) -> dict[str, list[Floats]]:
    """The blobs of every layer of *net* that learns, by layer, in the shapes its definition implies.

    Raises:
        RefusedError: blobs are missing, twice there, or of another shape; listed layer by layer.
    """
    holders = [layer for layer in weights.layers if layer.blobs]
    by_name = {layer.name: layer for layer in holders}
    problems: list[str] = []
    for layer in net.layers:
        twice = sum(h.name == layer.name for h in holders)
        if twice > 1 and layer.name in by_name:
            problems.append(f"{layer.name}: is {twice} times in the caffemodel")
    same = [la.name for la in net.layers if la.type in EXPECTED]
    problems += [
        f"{name}: appears twice in the prototxt" for name in dict.fromkeys(same) if same.count(name) > 1
    ]
    found: dict[str, list[Floats]] = {}
    for layer, bottoms, _ in layer_shapes(net):
        holder = by_name.get(layer.name)
        if layer.type not in EXPECTED or bottoms is None:
            if holder is not None:
                found[layer.name] = [b.read() for b in holder.blobs]
            continue
        expected = EXPECTED[layer.type](layer, bottoms[0])
        problem = _difference(layer, holder, expected)
        if problem:
            problems.append(problem)
        elif holder is not None:
            found[layer.name] = [
                b.read().reshape(shape) for b, shape in zip(holder.blobs, expected, strict=True)
            ]
    if problems:
        unused = [layer.name for layer in holders if layer.name not in {la.name for la in net.layers}]
        hint = f"; in the caffemodel without a layer: {', '.join(unused[:SHOWN])}" if unused else ""
        raise RefusedError(
            "the caffemodel does not belong to the prototxt",
            seen=listed(problems, SHOWN, "; ") + hint,
            next="give the weights that were trained with this definition, or correct the definition",
        )
    return found


def _difference(layer: Layer, holder: WeightLayer | None, expected: list[Shape]) -> str:
    if holder is None:
        return (
            f"{layer.name} ({layer.type}): missing in the caffemodel, which should hold {_shapes(expected)}"
            if expected
            else ""
        )
    have = [b.shape for b in holder.blobs]
    fits = len(have) == len(expected) and all(_fits(a, b) for a, b in zip(have, expected, strict=True))
    return (
        ""
        if fits
        else (
            f"{layer.name} ({layer.type}): the prototxt implies {_shapes(expected)}, the caffemodel has"
            f" {_shapes(have)}"
        )
    )


def _fits(have: Shape, expected: Shape) -> bool:
    return merged(have, expected) or (math.prod(have) == math.prod(expected) == 1)


def _shapes(shapes: list[Shape]) -> str:
    return ", ".join("x".join(map(str, s)) or "a scalar" for s in shapes) or "nothing"


def unused_weights(net: Net, weights: Weights) -> Check:
    """Check that every layer of the caffemodel that holds blobs is in the net.

    A branch of training left out is not a fault.
    """
    names = {la.name for la in net.layers}
    unused = [layer.name for layer in weights.layers if layer.blobs and layer.name not in names]
    if unused:
        reason = (
            "the caffemodel holds weights of layers that the network does not have:"
            f" {', '.join(unused[:SHOWN])}"
        )
        return catalog.UNUSED_WEIGHTS.failed(reason, subject=unused[0], numbers={"layers": len(unused)})
    return catalog.UNUSED_WEIGHTS.passed()


def effective(net: Net, blobs: dict[str, list[Floats]]) -> dict[str, Floats]:
    """Return the tensors that the net computes with, by ``layer.index``.

    They are the blobs, a BatchNorm's divided by its factor.
    """
    tensors: dict[str, Floats] = {}
    for layer in net.layers:
        values = blobs.get(layer.name, [])
        if layer.type == "BatchNorm" and len(values) == 3:
            values = list(statistics(values))
        tensors |= {f"{layer.name}.{index}": value for index, value in enumerate(values)}
    return tensors


def statistics(values: list[Floats]) -> tuple[Floats, Floats]:
    """Mean and variance of a BatchNorm: the accumulated sums divided by the accumulated factor."""
    factor = np.float32(values[2].reshape(-1)[0])
    scale = np.float32(0) if factor == 0 else np.float32(1) / factor
    return values[0] * scale, values[1] * scale
