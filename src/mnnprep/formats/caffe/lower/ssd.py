"""The ends of single-shot detectors.

Prior boxes as a constant, and detections as ONNX's TopK and NonMaxSuppression.

Format facts: the SSD branch's prior_box_layer.cpp, detection_output_layer.cpp and bbox_util.cpp (decoding by
centre and size, candidates per class in order of score; rows are image, label, score, corners).  Measured
with OpenCV 4.14: what is kept stands in order of score, whatever its class, and rows of zeros fill up to
keep_top_k.
"""

from __future__ import annotations

import numpy as np

from mnnprep.errors import RefusedError
from mnnprep.formats.caffe.geometry import aspect_ratios
from mnnprep.formats.caffe.lower.builder import Array, Lowering, Value
from mnnprep.formats.caffe.net import Layer, Shape


def prior_box(low: Lowering) -> list[Value]:
    """Lower PriorBox to a constant: its boxes depend on sizes alone."""
    return [low.add.constant(priors(low.layer, low.shapes[0], low.shapes[1]))]


def priors(layer: Layer, feature: Shape, image: Shape) -> Array:
    """The boxes (corners, as shares of the image) and their variances: float32 [1, 2, boxes * 4]."""
    param = layer.param("prior_box_param")
    height, width = feature[2:]
    image_h = param.integer("img_h") or param.integer("img_size") or image[2]
    image_w = param.integer("img_w") or param.integer("img_size") or image[3]
    step_h = param.number("step_h") or param.number("step") or image_h / height
    step_w = param.number("step_w") or param.number("step") or image_w / width
    offset = param.number("offset", 0.5)
    sizes: list[tuple[float, float]] = []
    largest = param.numbers("max_size")
    for index, least in enumerate(param.numbers("min_size")):
        sizes.append((least, least))
        if largest:
            sizes.append((np.sqrt(least * largest[index]),) * 2)
        sizes += [(least * np.sqrt(r), least / np.sqrt(r)) for r in aspect_ratios(layer)[1:]]
    half = np.array(sizes, np.float32) / 2
    centre_y, centre_x = np.meshgrid(
        (np.arange(height) + offset) * step_h, (np.arange(width) + offset) * step_w, indexing="ij"
    )
    centres = np.stack([centre_x, centre_y], -1)[:, :, None, :].astype(np.float32)
    boxes = np.concatenate([centres - half, centres + half], -1) / np.array(
        [image_w, image_h] * 2, np.float32
    )
    if param.flag("clip", False):
        boxes = np.clip(boxes, 0, 1)
    variance = param.numbers("variance") or [0.1]
    variances = np.resize(np.array(variance, np.float32), boxes.size)
    return np.stack([boxes.reshape(-1), variances]).astype(np.float32)[None]


def detection_output(low: Lowering) -> list[Value]:
    """Detections of one image: [1, 1, keep_top_k, 7].

    Raises:
        RefusedError: settings that this lowering does not have.
    """
    param, nms = (
        low.layer.param("detection_output_param"),
        low.layer.param("detection_output_param").message("nms_param"),
    )
    _refuse_others(low)
    classes, background = param.integer("num_classes"), param.integer("background_label_id")
    count = low.shapes[2][2] // 4
    boxes = _decoded(low, count)
    scores = low.add.node(
        "Transpose",
        low.add.node("Reshape", low.bottoms[1], low.add.integers(1, count, classes)),
        perm=[0, 2, 1],
    )
    keep = param.integer("keep_top_k", -1)
    candidates = min(nms.integer("top_k", count) if nms.integer("top_k", -1) > 0 else count, count)
    rows = [
        _of_class(
            low,
            boxes,
            scores,
            label,
            candidates,
            nms.number("nms_threshold", 0.3),
            param.number("confidence_threshold", -3e38),
        )
        for label in range(classes)
        if label != background
    ]
    found = low.add.node("Concat", *rows, axis=0) if len(rows) > 1 else rows[0]
    if keep > 0:
        found = _best(low, found, keep, several=len(rows) > 1)
    # As OpenCV gives it: always keep_top_k rows, zeros behind those found; without that limit at least one
    # row.
    zeros = low.add.constant(np.zeros((max(keep, 1), 7), np.float32))
    padded = low.add.node("Concat", found, zeros, axis=0)
    end = low.add.integers(keep)
    if keep <= 0:
        total = low.add.node(
            "Slice",
            low.add.node("Shape", found),
            low.add.integers(0),
            low.add.integers(1),
            low.add.integers(0),
        )
        end = low.add.node("Max", total, low.add.integers(1))
    kept = low.add.node("Slice", padded, low.add.integers(0), end, low.add.integers(0))
    return [low.add.node("Reshape", kept, low.add.integers(1, 1, keep if keep > 0 else -1, 7))]


def _refuse_others(low: Lowering) -> None:
    param = low.layer.param("detection_output_param")
    code = {"1": "CORNER", "2": "CENTER_SIZE", "3": "CORNER_SIZE"}.get(
        param.text("code_type"), param.text("code_type", "CORNER")
    )
    seen = ""
    if not param.flag("share_location", True):
        seen = "share_location: false"
    elif code != "CENTER_SIZE":
        seen = f"code_type: {code}"
    elif low.shapes[0][0] != 1:
        seen = f"a batch of {low.shapes[0][0]}"
    if seen:
        raise RefusedError(
            f"{low.layer.name} (DetectionOutput) can't be written in ONNX by this version",
            seen=seen,
            next="prepare it with --to caffe",
        )


def _decoded(low: Lowering, count: int) -> Value:
    """The boxes that the net predicts, [boxes, 4] as corners: its first bottom is relative to the priors."""
    add = low.add
    param = low.layer.param("detection_output_param")
    priors = add.node("Reshape", low.bottoms[2], add.integers(2, count, 4))
    halves = add.nodes_of("Split", [priors, add.integers(1, 1)], 2, axis=0)
    corners, variance = (add.node("Reshape", half, add.integers(count, 4)) for half in halves)
    low_corner, high_corner = add.nodes_of("Split", [corners, add.integers(2, 2)], 2, axis=1)
    size = add.node("Sub", high_corner, low_corner)
    centre = add.node("Mul", add.node("Add", low_corner, high_corner), add.scalar(0.5))
    offsets = add.node("Reshape", low.bottoms[0], add.integers(count, 4))
    if not param.flag("variance_encoded_in_target", False):
        offsets = add.node("Mul", offsets, variance)
    moved, grown = add.nodes_of("Split", [offsets, add.integers(2, 2)], 2, axis=1)
    new_centre = add.node("Add", add.node("Mul", moved, size), centre)
    half_size = add.node("Mul", add.node("Mul", add.node("Exp", grown), size), add.scalar(0.5))
    boxes = add.node(
        "Concat", add.node("Sub", new_centre, half_size), add.node("Add", new_centre, half_size), axis=1
    )
    return add.node("Clip", boxes, add.scalar(0), add.scalar(1)) if param.flag("clip", False) else boxes


def _of_class(
    low: Lowering, boxes: Value, scores: Value, label: int, candidates: int, overlap: float, least: float
) -> Value:
    """The detections of one class, best first: [found, 7]."""
    add = low.add
    own = add.node(
        "Reshape",
        add.node("Slice", scores, add.integers(label), add.integers(label + 1), add.integers(1)),
        add.integers(-1),
    )
    best, order = add.nodes_of("TopK", [own, add.integers(candidates)], 2, axis=0, largest=1, sorted=1)
    near = add.node("Gather", boxes, order, axis=0)
    chosen = add.node(
        "NonMaxSuppression",
        add.node("Reshape", near, add.integers(1, candidates, 4)),
        add.node("Reshape", best, add.integers(1, 1, candidates)),
        add.integers(candidates),
        add.constant(np.array([overlap], np.float32)),
        add.constant(np.array([least], np.float32)),
    )
    index = add.node(
        "Reshape",
        add.node("Slice", chosen, add.integers(2), add.integers(3), add.integers(1)),
        add.integers(-1),
    )
    score = add.node("Reshape", add.node("Gather", best, index, axis=0), add.integers(-1, 1))
    corners = add.node("Gather", near, index, axis=0)
    zero = add.node("Mul", score, add.scalar(0))
    return add.node("Concat", zero, add.node("Add", zero, add.scalar(label)), score, corners, axis=1)


def _best(low: Lowering, rows: Value, keep: int, *, several: bool) -> Value:
    """The *keep* rows of the highest score, highest first; those of one class are in this order already."""
    add = low.add
    if not several:
        return add.node("Slice", rows, add.integers(0), add.integers(keep), add.integers(0))
    total = add.node("Slice", add.node("Shape", rows), add.integers(0), add.integers(1), add.integers(0))
    count = add.node("Min", total, add.integers(keep))
    score = add.node(
        "Reshape",
        add.node("Slice", rows, add.integers(2), add.integers(3), add.integers(1)),
        add.integers(-1),
    )
    _, order = add.nodes_of("TopK", [score, count], 2, axis=0, largest=1, sorted=1)
    return add.node("Gather", rows, order, axis=0)
