"""Resize in the forms that torch does not export.

Measured with MNN 3.6.1: right are nearest (floor, round_prefer_floor) and linear in the coordinate modes
half_pixel, pytorch_half_pixel, asymmetric and align_corners, and cubic but for half_pixel upscaling;
antialias, crops, symmetric half pixels, ``axes``, aspect ratio policies, other cubic coefficients and ceil
roundings are not read. With align_corners and scales that shrink, the size that MNN takes is another.  Resize
of opset 10 has asymmetric coordinates, which MNN takes as half pixels.

If the sizes are fixed, every resized axis becomes a Gather (nearest) or a product with the constant matrix
of its weights. Gathers have the same bits, products are numerically equal.  If they are open, places and
weights are computed in the graph (``resize_open``), but for crops.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from mnnprep.repair.rule import Match, Rewrite, Rule
from mnnprep.repair.support import resize_open
from mnnprep.repair.support.building import FLOATS, Builder, static
from mnnprep.repair.support.editor import Editor
from mnnprep.repair.support.opsets import RESIZE_COORDINATES
from mnnprep.repair.support.reading import ModelView, tensor
from mnnprep.repair.support.resize_open import OpenResize
from mnnprep.repair.support.resize_weights import ResizedAxis, resized_axes

if TYPE_CHECKING:
    import onnx_ir as ir


class Resized(NamedTuple):
    """How the result is written out: by the matrices of its axes, or, for open sizes, in the graph."""

    dtype: str
    axes: list[ResizedAxis] | None
    open: OpenResize | None


def _find(view: ModelView) -> list[Match[Resized]]:
    found = [(node, opset, _why(node, opset, view)) for node, opset in view.nodes("Resize")]
    return [_match_of(node, opset, why, view) for node, opset, why in found if why]


def _match_of(node: ir.Node, opset: int, why: str, view: ModelView) -> Match[Resized]:
    dtype = view.dtype(node.inputs[0])
    axes = resized_axes(node, view) if opset >= RESIZE_COORDINATES else None
    found = Resized(dtype, axes, resize_open.read(node, opset, view) if axes is None else None)
    able = dtype in FLOATS and (found.axes is not None or found.open is not None)
    return Match(at=node, detail=why, opset=opset, found=found, repairable=able)


def _apply(editor: Editor, match: Match[Resized]) -> bool:
    node, found = match.node, match.plan
    build = Builder(editor, node, match.opset)
    if found.open is not None:
        build.replace(resize_open.written_out(build, found.open))
        return True
    x = editor.add(node, "Identity", node.inputs[0])
    for axis in found.axes or ():
        x = _resized(build, x, axis, found.dtype)
    build.replace(x)
    return True


def _resized(build: Builder, x: ir.Value, axis: ResizedAxis, dtype: str) -> ir.Value:
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


def _why(node: ir.Node, opset: int, view: ModelView) -> str:
    attributes = node.attributes
    if opset < RESIZE_COORDINATES:
        return _why_of_opset_10(node)
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
        attributes.get_int("exclude_outside", 0) != 0
        or abs(attributes.get_float("cubic_coeff_a", -0.75) + 0.75) > 1e-6
    ):
        return "exclude_outside or cubic_coeff_a"
    grows, shrinks = _change(node, view)
    if mode == "cubic" and coordinates in ("half_pixel", "pytorch_half_pixel") and grows is not False:
        return "cubic, half_pixel, upwards"
    return (
        "align_corners with scales below 1"
        if coordinates == "align_corners" and mode != "nearest" and not sized and shrinks
        else ""
    )


def _why_of_opset_10(node: ir.Node) -> str:
    """Opset 10 has asymmetric coordinates; MNN takes half pixels."""
    if node.attributes.get_string("mode", "nearest") != "nearest":
        return "opset 10, linear"
    scales = tensor(node.inputs[1])
    whole = scales is not None and bool((scales.numpy() == np.round(scales.numpy())).all())
    return "" if whole else "opset 10, nearest"


def _change(node: ir.Node, view: ModelView) -> tuple[bool | None, bool | None]:
    """Whether a size grows and whether one shrinks; None if it is not known."""
    scales = tensor(node.inputs[2]) if len(node.inputs) > 2 and node.inputs[2] is not None else None
    if scales is not None and scales.size:
        return bool((scales.numpy() > 1).any()), bool((scales.numpy() < 1).any())
    before, after = view.dims(node.inputs[0]), view.dims(node.outputs[0])
    old, new = static((before or ())[2:]), static((after or ())[2:])
    if not before or not after or old is None or new is None:
        return None, None
    pairs = list(zip(old, new, strict=False))
    return any(a < b for a, b in pairs), any(a > b for a, b in pairs)


RULE = Rule(
    name="resize-forms",
    severity="wrong",
    operators=frozenset({"Resize"}),
    find=_find,
    rewrite=Rewrite(apply=_apply, exact=False),
    hazard="MNN does not read this form of Resize",
    remedy="use nearest or linear with half_pixel or align_corners, and sizes instead of scales",
)
