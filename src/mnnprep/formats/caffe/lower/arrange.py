"""Layers that move elements or sum them up: fully connected, concat, slice, reshape, permute, reduction."""

from __future__ import annotations

import math

from mnnprep.formats.caffe.geometry import (
    axis_of,
    concat_axis,
    flatten_axes,
    permutation,
    reshape_target,
    slice_sizes,
)
from mnnprep.formats.caffe.lower.builder import Lowering, Value


def inner_product(low: Lowering) -> list[Value]:
    """Lower InnerProduct to Flatten and Gemm."""
    param = low.layer.param("inner_product_param")
    axis = axis_of(param.integer("axis", 1), len(low.shape))
    value = (
        low.bottom if len(low.shape) == 2 and axis == 1 else low.add.node("Flatten", low.bottom, axis=axis)
    )
    inputs = [value, low.blob(0), *([low.blob(1)] if len(low.blobs) > 1 else [])]
    value = low.add.node("Gemm", *inputs, transB=int(not param.flag("transpose", False)))
    return [value if axis == 1 else low.add.node("Reshape", value, low.add.integers(-1, *low.tops[0][1:]))]


def concat(low: Lowering) -> list[Value]:
    """Lower Concat to ONNX's."""
    return [low.add.node("Concat", *low.bottoms, axis=concat_axis(low.layer, len(low.shape)))]


def cut(low: Lowering) -> list[Value]:
    """Lower Slice to Split with the sizes that its points give."""
    axis, sizes = slice_sizes(low.layer, low.shape)
    return low.add.nodes_of("Split", [low.bottom, low.add.integers(*sizes)], len(sizes), axis=axis)


def reshape(low: Lowering) -> list[Value]:
    """Sizes of 0 and -1 mean in ONNX what they mean in Caffe."""
    return [
        low.add.node(
            "Reshape",
            low.bottom,
            low.add.integers(*_kept(reshape_target(low.layer, low.shape), len(low.shape), low)),
        )
    ]


def _kept(target: list[int], rank: int, low: Lowering) -> list[int]:
    return [low.shape[i] if size == 0 and i >= rank else size for i, size in enumerate(target)]


def flatten(low: Lowering) -> list[Value]:
    """Lower Flatten to ONNX's from axis 1 on, else to Reshape."""
    first, last = flatten_axes(low.layer, len(low.shape))
    if (first, last) == (1, len(low.shape) - 1):
        return [low.add.node("Flatten", low.bottom, axis=1)]
    behind = list(low.shape[last + 1 :])
    joined = math.prod(low.shape[first : last + 1]) if first == 0 and not behind else -1
    return [low.add.node("Reshape", low.bottom, low.add.integers(*[0] * first, joined, *behind))]


def permute(low: Lowering) -> list[Value]:
    """Lower Permute to Transpose."""
    return [low.add.node("Transpose", low.bottom, perm=permutation(low.layer, len(low.shape)))]


def reduction(low: Lowering) -> list[Value]:
    """Sum, sum of magnitudes, sum of squares or mean over every axis from `axis` on, times `coeff`."""
    param = low.layer.param("reduction_param")
    operation = {"1": "SUM", "2": "ASUM", "3": "SUMSQ", "4": "MEAN"}.get(
        param.text("operation"), param.text("operation", "SUM")
    )
    axes = list(range(axis_of(param.integer("axis"), len(low.shape)), len(low.shape)))
    value = low.bottom
    if operation == "ASUM":
        value = low.add.node("Abs", value)
    elif operation == "SUMSQ":
        value = low.add.node("Mul", value, value)
    if operation == "MEAN":
        value = low.add.node("ReduceMean", value, axes=axes, keepdims=0)
    else:
        value = low.add.node("ReduceSum", value, low.add.integers(*axes), keepdims=0)
    return [low.affine(value, param.number("coeff", 1.0), 0.0)]
