"""Resize in the forms that torch does not export.

Measured with MNN 3.6.1: right are nearest (floor, round_prefer_floor) and linear in the coordinate modes
half_pixel, pytorch_half_pixel, asymmetric and align_corners, and cubic but for half_pixel upscaling;
antialias, crops, symmetric half pixels, ``axes``, aspect ratio policies, other cubic coefficients and ceil
roundings are not read. With align_corners and scales that shrink, the size that MNN takes is another.

If the sizes are fixed, every resized axis becomes a Gather (nearest) or a product with the constant matrix
of its weights. Gathers have the same bits, products are numerically equal.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from mnnprep.repair.rule import Match, Rewrite, Rule
from mnnprep.repair.support.building import FLOATS, Builder, static
from mnnprep.repair.support.editor import Editor
from mnnprep.repair.support.opsets import RESIZE_COORDINATES
from mnnprep.repair.support.reading import ModelView, tensor
from mnnprep.repair.support.resize_weights import ResizedAxis, resized_axes

if TYPE_CHECKING:
    import onnx_ir as ir


def _find(view: ModelView) -> list[Match[tuple[str, list[ResizedAxis]]]]:
    found = [(node, opset, _why(node, view)) for node, opset in view.nodes("Resize")]
    return [_match_of(node, opset, why, view) for node, opset, why in found if why]


def _match_of(node: ir.Node, opset: int, why: str, view: ModelView) -> Match[tuple[str, list[ResizedAxis]]]:
    dtype, axes = (
        view.dtype(node.inputs[0]),
        resized_axes(node, view) if opset >= RESIZE_COORDINATES else None,
    )
    return Match(
        at=node,
        detail=why,
        opset=opset,
        found=None if axes is None else (dtype, axes),
        repairable=axes is not None and dtype in FLOATS,
    )


def _apply(editor: Editor, match: Match[tuple[str, list[ResizedAxis]]]) -> bool:
    node, opset, (dtype, axes) = match.node, match.opset, match.plan
    build, x = Builder(editor, node, opset), editor.add(node, "Identity", node.inputs[0])
    for axis in axes:
        x = _resized(build, x, axis, dtype)
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


def _why(node: ir.Node, view: ModelView) -> str:
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
