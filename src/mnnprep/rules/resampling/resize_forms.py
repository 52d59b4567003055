"""Resize in the forms that torch does not export.

Measured with MNN 3.6.1: right are nearest (floor, round_prefer_floor) and linear in the coordinate modes
half_pixel, pytorch_half_pixel, asymmetric and align_corners, and cubic but for half_pixel upscaling;
antialias, crops, symmetric half pixels, ``axes``, aspect ratio policies, other cubic coefficients and ceil
roundings are not read. With align_corners and scales that shrink, the size that MNN takes is another.

Where the sizes are fixed, every resized axis becomes a Gather (nearest) or a product with the constant matrix
of its weights. Gathers have the same bits, products are numerically equal.
"""

from __future__ import annotations

from typing import Any

from mnnprep.rules.building import FLOATS, Builder
from mnnprep.rules.editor import Editor
from mnnprep.rules.reading import Reading, tensor
from mnnprep.rules.resampling.weights import ResizedAxis, resized_axes
from mnnprep.rules.rule import Place, Rewrite, Rule

SINCE = 11  # the opset from which Resize has its coordinate modes


def find(reading: Reading) -> list[Place]:
    found = [(node, opset, _why(node, reading)) for node, opset in reading.nodes("Resize")]
    return [_place(node, opset, why, reading) for node, opset, why in found if why]


def _place(node: Any, opset: int, why: str, reading: Reading) -> Place:
    dtype, axes = reading.dtype(node.inputs[0]), resized_axes(node, reading) if opset >= SINCE else None
    return Place(
        node=node, detail=why, match=(opset, dtype, axes), repairable=axes is not None and dtype in FLOATS
    )


def apply(editor: Editor, place: Place) -> bool:
    node, (opset, dtype, axes) = place.node, place.match
    build, x = Builder(editor, node, opset), editor.add(node, "Identity", node.inputs[0])
    for axis in axes:
        x = _resized(build, x, axis, dtype)
    build.replace(x)
    return True


def _resized(build: Builder, x: Any, axis: ResizedAxis, dtype: str) -> Any:
    if axis.nearest:
        return build.op("Gather", x, build.constant(axis.matrix.argmax(1)), axis=axis.number)
    rank, number = axis.rank, axis.number
    if rank == 1:
        return build.reshape(
            build.op("MatMul", build.constant(axis.matrix, dtype), build.reshape(x, -1, 1)), -1
        )
    order = [*(other for other in range(rank) if other != number), number]
    turned = build.op("MatMul", build.transpose(x, *order), build.constant(axis.matrix.T, dtype))
    turned = turned if axis.outside is None else build.op("Add", turned, build.constant(axis.outside, dtype))
    return build.transpose(turned, *(order.index(other) for other in range(rank)))


def _why(node: Any, reading: Reading) -> str:
    attributes = node.attributes
    mode, coordinates = (
        attributes.get_string("mode", "nearest"),
        attributes.get_string("coordinate_transformation_mode", "half_pixel"),
    )
    sized = len(node.inputs) > 3 and node.inputs[3] is not None
    axes = list(attributes.get_ints("axes", ()))
    if attributes.get_int("antialias", 0):
        return "antialias"
    if attributes.get_string("keep_aspect_ratio_policy", "stretch") != "stretch":
        return "keep_aspect_ratio_policy"
    if axes and (not sized or axes != sorted(axes)):
        return "axes"
    if coordinates in ("tf_crop_and_resize", "half_pixel_symmetric", "tf_half_pixel_for_nn"):
        return str(coordinates)
    if mode == "nearest" and attributes.get_string("nearest_mode", "round_prefer_floor") in (
        "ceil",
        "round_prefer_ceil",
    ):
        return "a nearest_mode that rounds up"
    if mode == "cubic" and (
        attributes.get_int("exclude_outside", 0)
        or abs(attributes.get_float("cubic_coeff_a", -0.75) + 0.75) > 1e-6
    ):
        return "exclude_outside or cubic_coeff_a"
    grows, shrinks = _change(node, reading)
    if mode == "cubic" and coordinates in ("half_pixel", "pytorch_half_pixel") and grows is not False:
        return "cubic, half_pixel, upwards"
    return (
        "align_corners with scales below 1"
        if coordinates == "align_corners" and mode != "nearest" and not sized and shrinks
        else ""
    )


def _change(node: Any, reading: Reading) -> tuple[bool | None, bool | None]:
    """Whether a size grows and whether one shrinks; None where it is not known."""
    scales = tensor(node.inputs[2]) if len(node.inputs) > 2 and node.inputs[2] is not None else None
    if scales is not None and scales.size:
        return bool((scales.numpy() > 1).any()), bool((scales.numpy() < 1).any())
    before, after = reading.dims(node.inputs[0]), reading.dims(node.outputs[0])
    pairs = list(zip(before or (), after or (), strict=False))
    if not pairs or not all(isinstance(a, int) and isinstance(b, int) for a, b in pairs[2:]):
        return None, None
    return any(a < b for a, b in pairs[2:]), any(a > b for a, b in pairs[2:])  # type: ignore[operator]


RULE = Rule(
    name="resize-forms",
    severity="wrong",
    operators=frozenset({"Resize"}),
    find=find,
    rewrite=Rewrite(apply=apply, exact=False),
    hazard="MNN does not read this form of Resize",
    remedy="use nearest or linear with half_pixel or align_corners, and sizes in place of scales",
)
