"""Col2Im and DFT of fixed sizes, which MNN's converter does not read.

Measured with MNN 3.6.1: refused.  A DFT becomes a product with the constant matrix of its cosines and sines,
Col2Im one with a matrix of zeros and ones.  Numerically equal: a DFT takes as many products as its length
squared, and its rounding grows with the length.
"""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np

from mnnprep.rules.building import Builder, given, lacking, numbers, static
from mnnprep.rules.editor import Editor
from mnnprep.rules.reading import Array, Reading, scalar, tensor
from mnnprep.rules.rule import Place, Rewrite, Rule

OPS = ("Col2Im", "DFT")
MOST = 1 << 24  # numbers of a matrix
AXIS_INPUT = 20


def find(reading: Reading) -> list[Place]:
    places = []
    for node, opset in lacking(reading, *OPS):
        dims, able = (
            static(reading.dims(node.inputs[0])),
            reading.dtype(node.inputs[0]) in ("FLOAT", "DOUBLE"),
        )
        if node.op_type == "DFT":
            match: Any = _transform(node, opset, dims) if dims is not None else None
        else:
            match = _fold(node, dims) if dims is not None and len(dims) == 3 else None
        places.append(Place(node=node, match=(opset, dims, match), repairable=able and match is not None))
    return places


def apply(editor: Editor, place: Place) -> bool:
    node, (opset, dims, match) = place.node, place.match
    build, dtype = Builder(editor, node, opset), editor.reading.dtype(node.inputs[0])
    if node.op_type == "DFT":
        build.replace(_as_product(build, dims, dtype, *match))
        return True
    matrix, channels, image = match
    flat = build.reshape(node.inputs[0], dims[0] * channels, matrix.shape[0])
    build.replace(
        build.reshape(build.op("MatMul", flat, build.constant(matrix, dtype)), dims[0], channels, *image)
    )
    return True


def _fold(node: Any, dims: tuple[int, ...]) -> tuple[Array, int, list[int]] | None:
    """The matrix that adds every block's places to the image's, the channels, and the image's sizes."""
    if tensor(node.inputs[1]) is None or tensor(node.inputs[2]) is None:
        return None
    image, block = (numbers(tensor(value).numpy()) for value in node.inputs[1:3])
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
    return matrix, dims[1] // cells, image


def _transform(node: Any, opset: int, dims: tuple[int, ...]) -> tuple[Array, int] | None:
    """The matrix from (places, real and imaginary) to (frequencies, real and imaginary), four axes, and the
    axis of the places.
    """
    given_axis = given(node, 2) if opset >= AXIS_INPUT else None
    axis = (
        scalar(given_axis)
        if given_axis is not None
        else node.attributes.get_int("axis", 1)
        if opset < AXIS_INPUT
        else -2
    )
    length = given(node, 1)
    if axis is None or (length is not None and scalar(length) is None) or dims[-1] not in (1, 2):
        return None
    axis, inverse = int(axis) % len(dims), bool(node.attributes.get_int("inverse", 0))
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
    return matrix[:, : dims[-1]], axis


def _as_product(build: Builder, dims: tuple[int, ...], dtype: str, matrix: Array, axis: int) -> Any:
    rank = len(dims)
    places, parts, found, results = matrix.shape
    others = [number for number in range(rank - 1) if number != axis]
    order = [*others, axis, rank - 1]
    rest = [dims[number] for number in others]
    flat = build.reshape(build.transpose(build.node.inputs[0], *order), -1, places * parts)
    product = build.op("MatMul", flat, build.constant(matrix.reshape(places * parts, found * results), dtype))
    return build.transpose(
        build.reshape(product, *rest, found, results), *(order.index(number) for number in range(rank))
    )


RULE = Rule(
    name="products-written-out",
    severity="refused",
    operators=frozenset(OPS),
    find=find,
    rewrite=Rewrite(apply=apply, exact=False),
    hazard="MNN's converter does not read Col2Im and DFT",
    remedy="write it as a product with a constant matrix, as prepare does where the sizes are fixed",
)
