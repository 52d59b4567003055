"""Sizes of blobs.

They are what each layer type makes of its bottoms, and the blobs of weights that its definition implies.

Format facts: caffe.proto (parameters and their defaults), and of each layer the Reshape of its .cpp file;
pooling rounds up and drops a window that would begin in the padding (pooling_layer.cpp); crop counts its
offsets from `axis` on (crop_layer.cpp).
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from dataclasses import dataclass

from mnnprep.errors import RefusedError
from mnnprep.formats.caffe.net import Layer, Net, Shape
from mnnprep.formats.caffe.prototext import Message

Pair = tuple[int, int]


@dataclass(frozen=True)
class Window:
    """A sliding window over height and width."""

    kernel: Pair
    stride: Pair
    pad: Pair
    dilation: Pair


def _pair(param: Message, name: str, prefix: str, default: int) -> Pair:
    if param.has(f"{prefix}_h") or param.has(f"{prefix}_w"):
        return param.integer(f"{prefix}_h", default), param.integer(f"{prefix}_w", default)
    values = param.integers(name)
    return (values[0], values[-1]) if values else (default, default)


def window(layer: Layer, group: str) -> Window:
    """The window of a convolution or pooling.

    Raises:
        RefusedError: the layer has no kernel, or impossible sizes.
    """
    param = layer.param(group)
    found = Window(
        _pair(param, "kernel_size", "kernel", 0),
        _pair(param, "stride", "stride", 1),
        _pair(param, "pad", "pad", 0),
        _pair(param, "dilation", "", 1),
    )
    if min(found.kernel) < 1 or min(found.stride) < 1 or min(found.pad) < 0 or min(found.dilation) < 1:
        raise RefusedError(
            f"{layer.name} ({layer.type}) has an impossible window",
            seen=str(found),
            next="correct kernel_size, stride, pad and dilation",
        )
    return found


def axis_of(value: int, rank: int) -> int:
    """Return an axis of a blob of this *rank* counted from the front; negative ones count from the back."""
    return value + rank if value < 0 else value


def pooled(size: int, kernel: int, stride: int, pad: int, floor: bool = False) -> int:
    """Return the size of a pooled axis, rounded up as in Caffe, or down with *floor*.

    A last window that would begin in the padding behind the image is left out.
    """
    steps = (size + 2 * pad - kernel) / stride
    count = (math.floor(steps) if floor else math.ceil(steps)) + 1
    return count - 1 if pad and (count - 1) * stride >= size + pad else count


def _convolution(layer: Layer, bottoms: list[Shape]) -> list[Shape]:
    w, param = window(layer, "convolution_param"), layer.param("convolution_param")
    n, _, *space = bottoms[0]
    extents = [d * (k - 1) + 1 for k, d in zip(w.kernel, w.dilation, strict=True)]
    if layer.type in ("Deconvolution",):
        sizes = [s * (x - 1) + e - 2 * p for x, s, e, p in zip(space, w.stride, extents, w.pad, strict=True)]
    else:
        sizes = [(x + 2 * p - e) // s + 1 for x, s, e, p in zip(space, w.stride, extents, w.pad, strict=True)]
    return [(n, param.integer("num_output"), *sizes)] * len(layer.tops)


def _pooling(layer: Layer, bottoms: list[Shape]) -> list[Shape]:
    n, c, *space = bottoms[0]
    param = layer.param("pooling_param")
    if param.flag("global_pooling", False):
        return [(n, c, 1, 1)]
    w = window(layer, "pooling_param")
    floor = param.text("round_mode") in ("FLOOR", "1") or param.flag("ceil_mode", True) is False
    return [
        (
            n,
            c,
            *(pooled(x, k, s, p, floor) for x, k, s, p in zip(space, w.kernel, w.stride, w.pad, strict=True)),
        )
    ]


def _inner_product(layer: Layer, bottoms: list[Shape]) -> list[Shape]:
    param = layer.param("inner_product_param")
    return [(*bottoms[0][: axis_of(param.integer("axis", 1), len(bottoms[0]))], param.integer("num_output"))]


def _concat(layer: Layer, bottoms: list[Shape]) -> list[Shape]:
    axis = concat_axis(layer, len(bottoms[0]))
    return [(*bottoms[0][:axis], sum(b[axis] for b in bottoms), *bottoms[0][axis + 1 :])]


def concat_axis(layer: Layer, rank: int) -> int:
    """Return the axis of a Concat layer: ``axis``, or the older ``concat_dim``; 1 by default."""
    param = layer.param("concat_param")
    return axis_of(param.integer("axis", param.integer("concat_dim", 1)), rank)


def slice_sizes(layer: Layer, bottom: Shape) -> tuple[int, list[int]]:
    """The axis of a Slice and the sizes of its pieces."""
    param = layer.param("slice_param")
    axis = axis_of(param.integer("axis", param.integer("slice_dim", 1)), len(bottom))
    points = param.integers("slice_point")
    count = len(layer.tops)
    edges = [0, *points, bottom[axis]] if points else [bottom[axis] * i // count for i in range(count + 1)]
    return axis, [b - a for a, b in itertools.pairwise(edges)]


def _slice(layer: Layer, bottoms: list[Shape]) -> list[Shape]:
    axis, sizes = slice_sizes(layer, bottoms[0])
    return [(*bottoms[0][:axis], size, *bottoms[0][axis + 1 :]) for size in sizes]


def crop_offsets(layer: Layer, rank: int) -> tuple[int, list[int]]:
    """The first axis that a Crop cuts, and the offset of every axis from there on."""
    param = layer.param("crop_param")
    axis = axis_of(param.integer("axis", 2), rank)
    offsets = param.integers("offset") or [0]
    return axis, offsets * (rank - axis) if len(offsets) == 1 else offsets


def _crop(layer: Layer, bottoms: list[Shape]) -> list[Shape]:
    axis, _ = crop_offsets(layer, len(bottoms[0]))
    return [(*bottoms[0][:axis], *bottoms[1][axis:])]


def reshape_target(layer: Layer, bottom: Shape) -> list[int]:
    """The sizes of a Reshape as written (0 copies, -1 is what remains), for the axes from `axis` on."""
    param = layer.param("reshape_param")
    axis, count = axis_of(param.integer("axis"), len(bottom)), param.integer("num_axes", -1)
    end = len(bottom) if count < 0 else axis + count
    return [*([0] * axis), *param.message("shape").integers("dim"), *bottom[end:]]


def _reshape(layer: Layer, bottoms: list[Shape]) -> list[Shape]:
    sizes = [bottoms[0][i] if size == 0 else size for i, size in enumerate(reshape_target(layer, bottoms[0]))]
    known = math.prod(s for s in sizes if s != -1)
    return [tuple(math.prod(bottoms[0]) // known if s == -1 else s for s in sizes)]


def flatten_axes(layer: Layer, rank: int) -> Pair:
    """Return the first and the last axis that a Flatten layer joins."""
    param = layer.param("flatten_param")
    return axis_of(param.integer("axis", 1), rank), axis_of(param.integer("end_axis", -1), rank)


def _flatten(layer: Layer, bottoms: list[Shape]) -> list[Shape]:
    first, last = flatten_axes(layer, len(bottoms[0]))
    return [(*bottoms[0][:first], math.prod(bottoms[0][first : last + 1]), *bottoms[0][last + 1 :])]


def permutation(layer: Layer, rank: int) -> list[int]:
    """Return the order of a Permute layer, with the axes that it does not name behind the others."""
    order = layer.param("permute_param").integers("order")
    return order + [axis for axis in range(rank) if axis not in order]


def _permute(layer: Layer, bottoms: list[Shape]) -> list[Shape]:
    return [tuple(bottoms[0][axis] for axis in permutation(layer, len(bottoms[0])))]


def _reduction(layer: Layer, bottoms: list[Shape]) -> list[Shape]:
    return [bottoms[0][: axis_of(layer.param("reduction_param").integer("axis"), len(bottoms[0]))]]


def interpolated(layer: Layer, bottom: Shape) -> Pair:
    """The height and width that an Interp or Upsample gives."""
    param = layer.param("interp_param") if layer.type == "Interp" else layer.param("upsample_param")
    if layer.type == "Upsample":
        scale = param.integer("scale", 2)
        return bottom[2] * scale, bottom[3] * scale
    pads = param.integer("pad_beg") + param.integer("pad_end")  # negative or 0
    height, width = bottom[2] + pads, bottom[3] + pads
    if param.has("height") or param.has("width"):
        return param.integer("height"), param.integer("width")
    if param.has("shrink_factor"):
        height, width = ((x - 1) // param.integer("shrink_factor") + 1 for x in (height, width))
    zoom = param.integer("zoom_factor", 1)
    return height + (height - 1) * (zoom - 1), width + (width - 1) * (zoom - 1)


def _interp(layer: Layer, bottoms: list[Shape]) -> list[Shape]:
    return [(*bottoms[0][:2], *interpolated(layer, bottoms[0]))]


def priors_per_place(layer: Layer) -> int:
    """How many boxes a PriorBox makes at every place of its grid (prior_box_layer.cpp)."""
    param = layer.param("prior_box_param")
    ratios = aspect_ratios(layer)
    return len(ratios) * len(param.numbers("min_size")) + len(param.numbers("max_size"))


def aspect_ratios(layer: Layer) -> list[float]:
    """Return the aspect ratios of a PriorBox layer: 1, then its own, each with its inverse if it flips.

    A ratio that is there to within 1e-6 is left out.
    """
    param = layer.param("prior_box_param")
    ratios = [1.0]
    for ratio in param.numbers("aspect_ratio"):
        if all(abs(ratio - known) >= 1e-6 for known in ratios):
            ratios += [ratio, 1.0 / ratio] if param.flag("flip", True) else [ratio]
    return ratios


def _prior_box(layer: Layer, bottoms: list[Shape]) -> list[Shape]:
    return [(1, 2, bottoms[0][2] * bottoms[0][3] * priors_per_place(layer) * 4)]


def _same(layer: Layer, bottoms: list[Shape]) -> list[Shape]:
    return [bottoms[0]] * len(layer.tops)


_SAME = (
    "ReLU",
    "ReLU6",
    "PReLU",
    "ELU",
    "Sigmoid",
    "TanH",
    "AbsVal",
    "BNLL",
    "Power",
    "Exp",
    "Log",
    "Eltwise",
    "Scale",
    "Bias",
    "BatchNorm",
    "LRN",
    "Softmax",
    "Normalize",
    "MVN",
    "Threshold",
    "Clip",
)
Rule = Callable[[Layer, list[Shape]], list[Shape]]
SHAPES: dict[str, Rule] = {
    **dict.fromkeys(_SAME, _same),
    "Convolution": _convolution,
    "ConvolutionDepthwise": _convolution,
    "DepthwiseConvolution": _convolution,
    "Deconvolution": _convolution,
    "Pooling": _pooling,
    "InnerProduct": _inner_product,
    "Concat": _concat,
    "Slice": _slice,
    "Crop": _crop,
    "Reshape": _reshape,
    "Flatten": _flatten,
    "Permute": _permute,
    "Reduction": _reduction,
    "Interp": _interp,
    "Upsample": _interp,
    "PriorBox": _prior_box,
}


def layer_shapes(net: Net) -> list[tuple[Layer, list[Shape] | None, list[Shape] | None]]:
    """Return every layer with the shapes of its bottoms and tops.

    The shapes are None from a layer on whose type says nothing of shapes here.

    Raises:
        RefusedError: a layer's definition does not fit what it is given, or makes a blob without elements.
    """
    known: dict[str, Shape | None] = dict(net.inputs)
    result: list[tuple[Layer, list[Shape] | None, list[Shape] | None]] = []
    for layer in net.layers:
        found = [known[b] for b in layer.bottoms]
        bottoms = [f for f in found if f is not None]
        tops: list[Shape] | None = None
        if layer.type in SHAPES and len(bottoms) == len(found) and bottoms:
            try:
                tops = SHAPES[layer.type](layer, bottoms)
            except (IndexError, ValueError, ZeroDivisionError) as error:
                raise _misfit(layer, bottoms, str(error) or type(error).__name__) from error
            if any(size < 1 for shape in tops for size in shape):
                raise _misfit(layer, bottoms, f"it would make {', '.join(map(_shown, tops))}")
        result.append((layer, bottoms if len(bottoms) == len(found) else None, tops))
        known |= dict(zip(layer.tops, tops, strict=False)) if tops else dict.fromkeys(layer.tops)
    return result


def _misfit(layer: Layer, bottoms: list[Shape], why: str) -> RefusedError:
    return RefusedError(
        f"{layer.name} ({layer.type}) does not fit its input",
        seen=f"{', '.join(map(_shown, bottoms))}: {why}",
        next="correct the layer, or declare a larger input with --input",
    )


def _shown(shape: Shape) -> str:
    return " x ".join(map(str, shape)) or "a scalar"
