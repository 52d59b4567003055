"""Col2Im and DFT of fixed sizes, which MNN's converter does not read.

Measured with MNN 3.6.1: refused.  A DFT becomes a product with the constant matrix of its cosines and sines,
Col2Im one with a matrix of zeros and ones.  Numerically equal: a DFT takes as many products as its length
squared, and its rounding grows with the length.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from mnnprep.repair.rule import Match, Rewrite, Rule
from mnnprep.repair.support.building import Builder, fed, given, lacking, numbers, static
from mnnprep.repair.support.editor import Editor
from mnnprep.repair.support.opsets import INPUTS_SINCE
from mnnprep.repair.support.reading import Array, ModelView, scalar, tensor

if TYPE_CHECKING:
    import onnx_ir as ir

OPS = ("Col2Im", "DFT")
MOST = 1 << 24  # numbers of a matrix


@dataclass(frozen=True)
class Fold:
    """The matrix that adds every block's places to the image's, the channels, and the image's sizes."""

    matrix: Array
    channels: int
    image: list[int]


@dataclass(frozen=True)
class Transform:
    """The matrix from (places, real and imaginary) to (frequencies, real and imaginary).

    It has four axes, and comes with the axis of the places.
    """

    matrix: Array
    axis: int


@dataclass(frozen=True)
class Product:
    """The sizes of the input, and what it is multiplied by."""

    dims: tuple[int, ...]
    by: Fold | Transform


def _find(view: ModelView) -> Iterator[Match[Product]]:
    for node, opset in lacking(view, *OPS):
        dims, able = static(view.dims(node.inputs[0])), view.dtype(node.inputs[0]) in ("FLOAT", "DOUBLE")
        by: Fold | Transform | None = None
        if dims is not None:
            by = _transform(node, opset, dims) if node.op_type == "DFT" else _fold(node, dims)
        found = Product(dims, by) if dims is not None and by is not None else None
        yield Match(at=node, opset=opset, found=found, repairable=able and found is not None)


def _apply(editor: Editor, match: Match[Product]) -> bool:
    node, dims, by = match.node, match.plan.dims, match.plan.by
    build, dtype = Builder(editor, node, match.opset), editor.view.dtype(node.inputs[0])
    if isinstance(by, Transform):
        build.replace(_as_product(build, dims, dtype, by.matrix, by.axis))
        return True
    flat = build.reshape(node.inputs[0], dims[0] * by.channels, by.matrix.shape[0])
    product = build.op("MatMul", flat, build.constant(by.matrix, dtype))
    build.replace(build.reshape(product, dims[0], by.channels, *by.image))
    return True


def _fold(node: ir.Node, dims: tuple[int, ...]) -> Fold | None:
    held = [tensor(value) for value in node.inputs[1:3]]
    if len(dims) != 3 or held[0] is None or held[1] is None:
        return None
    image, block = numbers(held[0].numpy()), numbers(held[1].numpy())
    rank = len(image)
    strides, dilations = (
        list(node.attributes.get_ints(name, [1] * rank)) for name in ("strides", "dilations")
    )
    pads = list(node.attributes.get_ints("pads", [0] * 2 * rank))
    grid = [
        (size + pads[axis] + pads[axis + rank] - (block[axis] - 1) * dilations[axis] - 1) // strides[axis] + 1
        for axis, size in enumerate(image)
    ]
    cells, blocks = int(np.prod(block)), int(np.prod(grid))
    if blocks != dims[2] or cells * blocks * int(np.prod(image)) > MOST:
        return None
    matrix = np.zeros((cells * blocks, int(np.prod(image))), np.float32)
    for row, (cell, step) in enumerate(
        itertools.product(itertools.product(*map(range, block)), itertools.product(*map(range, grid)))
    ):
        place = [
            s * strides[a] + c * dilations[a] - pads[a]
            for a, (c, s) in enumerate(zip(cell, step, strict=True))
        ]
        if all(0 <= p < size for p, size in zip(place, image, strict=True)):
            matrix[row, np.ravel_multi_index(place, image)] = 1
    return Fold(matrix, dims[1] // cells, image)


def _transform(node: ir.Node, opset: int, dims: tuple[int, ...]) -> Transform | None:
    given_axis = given(node, 2) if opset >= INPUTS_SINCE["DFT"] else None
    default = node.attributes.get_int("axis", 1) if opset < INPUTS_SINCE["DFT"] else -2
    told = scalar(given_axis) if given_axis is not None else default
    length = given(node, 1)
    if told is None or (length is not None and scalar(length) is None) or dims[-1] not in (1, 2):
        return None
    axis, inverse = int(told) % len(dims), bool(node.attributes.get_int("inverse", 0))
    one_sided, size = bool(node.attributes.get_int("onesided", 0)), dims[axis]
    total = (
        int(scalar(length) or 0) if length is not None else 2 * (size - 1) if one_sided and inverse else size
    )
    if not total or 4 * total * size > MOST:
        return None
    waves = np.exp((2j if inverse else -2j) * np.pi * np.outer(np.arange(size), np.arange(total)) / total) / (
        total if inverse else 1
    )
    waves[total:] = 0
    if one_sided and not inverse:
        waves = waves[:, : total // 2 + 1]
    matrix = np.stack([np.stack([waves.real, waves.imag], -1), np.stack([-waves.imag, waves.real], -1)], 1)
    if one_sided and inverse:  # the other half is the conjugate of this one
        weight = np.where((np.arange(size) == 0) | (2 * np.arange(size) == total), 1.0, 2.0)
        weight[total // 2 + 1 :] = 0
        matrix = (matrix * weight[:, None, None, None])[..., :1]
    return Transform(matrix[:, : dims[-1]], axis)


def _as_product(build: Builder, dims: tuple[int, ...], dtype: str, matrix: Array, axis: int) -> ir.Value:
    rank = len(dims)
    places, parts, found, results = matrix.shape
    others = [number for number in range(rank - 1) if number != axis]
    order = [*others, axis, rank - 1]
    rest = [dims[number] for number in others]
    flat = build.reshape(build.transpose(fed(build.node, 0), *order), -1, places * parts)
    product = build.op("MatMul", flat, build.constant(matrix.reshape(places * parts, found * results), dtype))
    return build.transpose(
        build.reshape(product, *rest, found, results), *(order.index(number) for number in range(rank))
    )


RULE = Rule(
    name="products-written-out",
    severity="refused",
    operators=frozenset(OPS),
    find=_find,
    rewrite=Rewrite(apply=_apply, exact=False),
    hazard="MNN's converter does not read Col2Im and DFT",
    remedy="write it as a product with a constant matrix, as prepare does if the sizes are fixed",
)
