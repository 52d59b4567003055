"""The weights with which Resize makes one axis of another.

They are as ONNX's operator document gives them (Resize-19).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from fractions import Fraction
from typing import TYPE_CHECKING

import numpy as np

from mnnprep.repair.support.building import given, numbers
from mnnprep.repair.support.reading import Array, ModelView, tensor

if TYPE_CHECKING:
    import onnx_ir as ir

OPEN = -1  # a size that is not fixed
MOST = 1 << 22  # numbers of a matrix


@dataclass(frozen=True)
class ResizedAxis:
    """Axis *number* of *rank*: ``matrix`` is (sizes after, sizes before).

    ``outside`` is what is added if a crop lies outside the input.
    """

    number: int
    rank: int
    matrix: Array
    nearest: bool
    outside: Array | None


@dataclass(frozen=True)
class Form:
    """How coordinates and weights are taken."""

    mode: str
    coordinates: str
    nearest_mode: str
    a: float
    exclude: bool
    antialias: bool
    extrapolation: float


def form_of(node: ir.Node) -> Form:
    """How *node* takes coordinates and weights, by its attributes."""
    attributes = node.attributes
    return Form(
        attributes.get_string("mode", "nearest"),
        attributes.get_string("coordinate_transformation_mode", "half_pixel"),
        attributes.get_string("nearest_mode", "round_prefer_floor"),
        attributes.get_float("cubic_coeff_a", -0.75),
        bool(attributes.get_int("exclude_outside", 0)),
        bool(attributes.get_int("antialias", 0)),
        attributes.get_float("extrapolation_value", 0.0),
    )


def nearest(place: Fraction, scale: Fraction, form: Form) -> int:
    """The place of the input that *place* of the output takes, without a limit, in exact arithmetic."""
    half = Fraction(1, 2)
    at = place / scale if form.coordinates == "asymmetric" else (place + half) / scale
    if form.coordinates not in ("asymmetric", "tf_half_pixel_for_nn"):
        at -= half
    return _rounded(at, form.nearest_mode)


def resized_axes(node: ir.Node, view: ModelView) -> list[ResizedAxis] | None:
    """Return the axes that change, or None if they can't be written as a matrix each.

    That is so if a size is not fixed or the form is another one.
    """
    known, attributes = view.dims(node.inputs[0]), node.attributes
    if known is None:
        return None
    dims = [size if isinstance(size, int) else OPEN for size in known]
    form = form_of(node)
    axes = [axis % len(dims) for axis in attributes.get_ints("axes", range(len(dims)))]
    found = _scales(
        node, [dims[axis] for axis in axes], attributes.get_string("keep_aspect_ratio_policy", "stretch")
    )
    crops = _crops(node, len(axes)) if form.coordinates == "tf_crop_and_resize" else [(0.0, 1.0)] * len(axes)
    if found is None or crops is None:
        return None
    changed = []
    for axis, (scale, after), crop in zip(axes, found, crops, strict=True):
        if scale == 1.0 and crop == (0.0, 1.0) and after == dims[axis]:
            continue
        if dims[axis] == OPEN or after * dims[axis] > MOST:
            return None
        changed.append(_axis(axis, len(dims), dims[axis], after, scale, crop, form))
    outside = [axis for axis in changed if axis.outside is not None]
    return (
        None
        if len(outside) > 1 and form.extrapolation and len(outside) != len(changed)
        else _merged(changed, form)
    )


def _merged(changed: list[ResizedAxis], form: Form) -> list[ResizedAxis] | None:
    """Merge with a value outside, an axis after the other.

    If one lies outside, the other's value must stay, which a sum of rows gives.
    """
    if form.extrapolation == 0.0:
        return changed
    return (
        changed
        if all(abs(float(axis.matrix.sum(1).max(initial=0.0)) - 1) < 1e-6 for axis in changed)
        else None
    )


def _scales(node: ir.Node, sizes: list[int], policy: str) -> list[tuple[float, int]] | None:
    """The scale and the new size of each axis."""
    scales, wanted = (
        tensor(value) if value is not None else None for value in (given(node, 2), given(node, 3))
    )
    if given(node, 3) is None:
        if scales is None or scales.size != len(sizes):
            return None
        values = [float(s) for s in scales.numpy()]
        return [
            (s, OPEN if size == OPEN else math.floor(size * s)) for s, size in zip(values, sizes, strict=True)
        ]
    if wanted is None or wanted.size != len(sizes) or OPEN in sizes:
        return None
    targets = numbers(wanted.numpy())
    if policy == "stretch":
        return [(target / size, target) for target, size in zip(targets, sizes, strict=True)]
    scale = (min if policy == "not_larger" else max)(
        target / size for target, size in zip(targets, sizes, strict=True)
    )
    return [(scale, math.floor(scale * size + 0.5)) for size in sizes]


def _crops(node: ir.Node, count: int) -> list[tuple[float, float]] | None:
    roi = tensor(given(node, 1)) if given(node, 1) is not None else None
    if roi is None or roi.size != 2 * count:
        return None
    values = [float(v) for v in roi.numpy()]
    return list(zip(values[:count], values[count:], strict=True))


def _axis(
    number: int, rank: int, before: int, after: int, scale: float, crop: tuple[float, float], form: Form
) -> ResizedAxis:
    matrix, outside = np.zeros((after, before)), np.zeros(after)
    for place in range(after):
        at = _coordinate(place, before, after, scale, crop, form.coordinates)
        if form.coordinates == "tf_crop_and_resize" and not 0 <= at <= before - 1:
            outside[place] = form.extrapolation
            continue
        for source, weight in _weights(at, before, scale, form):
            matrix[place, source] += weight
    crops = form.coordinates == "tf_crop_and_resize" and not np.allclose(matrix.sum(1), 1)
    return ResizedAxis(number, rank, matrix, form.mode == "nearest" and not crops, outside if crops else None)


def _coordinate(
    place: int, before: int, after: int, scale: float, crop: tuple[float, float], mode: str
) -> float:
    if mode == "align_corners":
        whole = before * scale  # the size before it is cut to an integer
        return place * (before - 1) / (whole - 1) if whole > 1 else 0.0
    if mode == "asymmetric":
        return place / scale
    if mode == "tf_crop_and_resize":
        start, end = crop
        return (
            start * (before - 1) + place * (end - start) * (before - 1) / (after - 1)
            if after > 1
            else 0.5 * (start + end) * (before - 1)
        )
    if mode == "half_pixel_symmetric":
        adjustment = after / (scale * before)
        return before / 2 * (1 - adjustment) + (place + 0.5) / scale - 0.5
    if mode == "pytorch_half_pixel" and after == 1:
        return 0.0
    return (place + 0.5) / scale - (0.0 if mode == "tf_half_pixel_for_nn" else 0.5)


def _weights(at: float, before: int, scale: float, form: Form) -> list[tuple[int, float]]:
    """The places of the input that one of the output takes, each with its weight."""
    if form.mode == "nearest":
        return [(min(max(_rounded(at, form.nearest_mode), 0), before - 1), 1.0)]
    reach = 1 if form.mode == "linear" else 2
    stretch = min(scale, 1.0) if form.antialias else 1.0
    low = math.floor(at - reach / stretch) + 1
    taps = [
        (place, _kernel((place - at) * stretch, form))
        for place in range(low, math.ceil(at + reach / stretch) + 1)
    ]
    taps = [(place, weight) for place, weight in taps if weight]
    if form.exclude:
        taps = [(place, weight) for place, weight in taps if 0 <= place < before]
    total = sum(weight for _, weight in taps) if form.antialias or form.exclude else 1.0
    return [(min(max(place, 0), before - 1), weight / total) for place, weight in taps]


def _rounded(at: float | Fraction, mode: str) -> int:
    half = Fraction(1, 2)
    if mode == "round_prefer_floor":
        return math.ceil(at - half)
    if mode == "round_prefer_ceil":
        return math.floor(at + half)
    return math.floor(at) if mode == "floor" else math.ceil(at)


def _kernel(distance: float, form: Form) -> float:
    d = abs(distance)
    if form.mode == "linear":
        return max(1.0 - d, 0.0)
    if d <= 1:
        return ((form.a + 2) * d - (form.a + 3)) * d * d + 1
    return ((form.a * d - 5 * form.a) * d + 8 * form.a) * d - 4 * form.a if d < 2 else 0.0
