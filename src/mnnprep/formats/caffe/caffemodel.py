"""The binary side of Caffe: layers with their blobs, read in place.

Nothing is allocated before its size was checked.

Format facts (caffe.proto, field numbers): NetParameter name 1, layers 2 (V1), layer 100 (V2); LayerParameter
name 1, type 2, blobs 7; V1LayerParameter layer 1 (V0), name 4, type 5, blobs 6; V0LayerParameter name 1, type
2, blobs 50; BlobProto num 1, channels 2, height 3, width 4, data 5, diff 6, shape 7, double_data 8,
double_diff 9; BlobShape dim 1.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import numpy.typing as npt

from mnnprep.errors import RefusedError
from mnnprep.formats.caffe.versions import V0_TYPES, V1_TYPES
from mnnprep.formats.tensor_info import MAX_ELEMENTS, element_count
from mnnprep.weights.dtypes import MOST_DIMENSIONS
from mnnprep.wire.buffer import Buffer
from mnnprep.wire.protobuf import (
    FIXED32,
    FIXED64,
    LENGTH,
    VARINT,
    WireError,
    delimited,
    encoded,
    fields,
    packed,
    signed,
    text,
)

Floats = npt.NDArray[np.float32]
_AGAIN = "download it again, and compare its size or checksum with the original's"
# LayerParameter's own fields: what is not among them is kept as it stands when a layer is written
_KNOWN = frozenset({*range(1, 12), *range(100, 150), *range(200, 208)})


@dataclass(frozen=True)
class Blob:
    """One blob: its shape, and the extents of its numbers in the file.

    The shape is the one stated, or V1's num, channels, height, width.
    """

    shape: tuple[int, ...]
    double: bool
    extents: tuple[tuple[int, int], ...]
    gradient_bytes: int
    legacy: bool
    data: Buffer = field(repr=False, compare=False, default=b"")

    @property
    def elements(self) -> int:
        """The number of elements."""
        return element_count(self.shape)

    def read(self) -> Floats:
        """The numbers as float32, in the blob's shape."""
        raw = b"".join(self.data[first:last] for first, last in self.extents)
        return np.frombuffer(raw, "<f8" if self.double else "<f4").astype(np.float32).reshape(self.shape)


@dataclass(frozen=True)
class WeightLayer:
    """A layer of the caffemodel that may hold blobs.

    ``unknown`` are the bytes of fields that Caffe's definition does not have.
    """

    name: str
    type: str
    blobs: tuple[Blob, ...]
    version: int
    unknown: bytes = field(repr=False, default=b"")


@dataclass(frozen=True)
class Weights:
    """A caffemodel: its layers in order, and the largest version of the format met in it (0, 1 or 2)."""

    name: str
    layers: tuple[WeightLayer, ...]
    version: int

    @property
    def doubles(self) -> bool:
        """Whether any blob is stored in float64."""
        return any(b.double for layer in self.layers for b in layer.blobs)

    @property
    def gradient_bytes(self) -> int:
        """The bytes that gradients (the blobs' `diff`) take in the file."""
        return sum(b.gradient_bytes for layer in self.layers for b in layer.blobs)


def read_weights(path: Path) -> Weights:
    """The layers of the caffemodel at *path*; blobs stay in the file until :meth:`Blob.read`.

    Raises:
        RefusedError: truncated or malformed (with the byte), a blob whose shape is negative, beyond any
        tensor,
            or not that of the numbers it holds.
    """
    if path.stat().st_size == 0:
        raise RefusedError("the caffemodel is empty", seen=f"{path.name}, 0 bytes", next=_AGAIN)
    content = path.read_bytes()
    try:
        return _net(content)
    except WireError as error:
        raise RefusedError(
            f"the caffemodel is {'truncated' if error.cut else 'malformed'} at byte {error.offset}",
            seen=f"{path.name}, {len(content)} bytes: {error.reason}",
            next=_AGAIN,
        ) from error


def _net(data: bytes) -> Weights:
    name = ""
    layers: list[WeightLayer] = []
    for number, kind, first, last in fields(data, 0, len(data)):
        if kind == LENGTH and number == 1:
            name = text(data, first, last)
        elif kind == LENGTH and number == 2:
            layers.append(_v1_layer(data, first, last))
        elif kind == LENGTH and number == 100:
            layers.append(_v2_layer(data, first, last))
    if not layers:
        raise RefusedError("the caffemodel has no layers", seen=f"{len(data)} bytes", next=_AGAIN)
    return Weights(name, tuple(layers), max(layer.version for layer in layers))


def _v2_layer(data: bytes, start: int, end: int) -> WeightLayer:
    name, kind_name, blobs, unknown = "", "", [], []
    at = start
    for number, kind, first, last in fields(data, start, end):
        behind = last if kind != VARINT else _behindencoded(data, last)
        if number == 1 and kind == LENGTH:
            name = text(data, first, last)
        elif number == 2 and kind == LENGTH:
            kind_name = text(data, first, last)
        elif number == 7 and kind == LENGTH:
            blobs.append((first, last))
        elif number not in _KNOWN:
            unknown.append(data[at:behind])
        at = behind
    return WeightLayer(name, kind_name, _blobs(data, blobs, name), 2, b"".join(unknown))


def _behindencoded(data: bytes, at: int) -> int:
    while data[at] >= 0x80:
        at += 1
    return at + 1


def _v1_layer(data: bytes, start: int, end: int) -> WeightLayer:
    name, kind_name, blobs = "", "", []
    for number, kind, first, last in fields(data, start, end):
        if number == 1 and kind == LENGTH:
            return _v0_layer(data, first, last)
        if number == 4 and kind == LENGTH:
            name = text(data, first, last)
        elif number == 5 and kind == VARINT:
            kind_name = V1_TYPES.get(first, ("", f"type {first}"))[1]
        elif number == 6 and kind == LENGTH:
            blobs.append((first, last))
    return WeightLayer(name, kind_name, _blobs(data, blobs, name), 1)


def _v0_layer(data: bytes, start: int, end: int) -> WeightLayer:
    name, kind_name, blobs = "", "", []
    for number, kind, first, last in fields(data, start, end):
        if number == 1 and kind == LENGTH:
            name = text(data, first, last)
        elif number == 2 and kind == LENGTH:
            kind_name = V0_TYPES.get(text(data, first, last), text(data, first, last))
        elif number == 50 and kind == LENGTH:
            blobs.append((first, last))
    return WeightLayer(name, kind_name, _blobs(data, blobs, name), 0)


def _blobs(data: bytes, extents: Iterable[tuple[int, int]], layer: str) -> tuple[Blob, ...]:
    return tuple(
        _blob(data, first, last, f"{layer}, blob {index}") for index, (first, last) in enumerate(extents)
    )


def _blob(data: bytes, start: int, end: int, place: str) -> Blob:
    legacy: dict[int, int] = {}
    shape: list[int] | None = None
    numbers: dict[int, list[tuple[int, int]]] = {5: [], 8: []}
    gradient = 0
    for number, kind, first, last in fields(data, start, end):
        if number in (1, 2, 3, 4) and kind == VARINT:
            legacy[number] = signed(first)
        elif number == 7 and kind == LENGTH:
            shape = [signed(v) for f in fields(data, first, last) if f[0] == 1 for v in packed(data, f)]
        elif number in (5, 8) and kind in (LENGTH, FIXED32, FIXED64):
            numbers[number].append((first, last))
        elif number in (6, 9):
            gradient += last - first
    if legacy and shape is None:
        sizes = tuple(legacy.get(n, 0) for n in (1, 2, 3, 4))
    else:
        sizes = tuple(shape or ())
    double = bool(numbers[8])
    blob = Blob(sizes, double, tuple(numbers[8] or numbers[5]), gradient, bool(legacy), data)
    _check_size(blob, place)
    return blob


def _check_size(blob: Blob, place: str) -> None:
    shown = " x ".join(map(str, blob.shape[:MOST_DIMENSIONS])) or "a scalar"
    if len(blob.shape) > MOST_DIMENSIONS:
        raise RefusedError(
            "a blob of the caffemodel has more dimensions than any framework takes",
            seen=f"{place}: {len(blob.shape)}: {shown} ...",
            next=_AGAIN,
        )
    if any(size < 0 for size in blob.shape):
        raise RefusedError(
            "a blob of the caffemodel has a negative dimension", seen=f"{place}: {shown}", next=_AGAIN
        )
    held = sum(last - first for first, last in blob.extents) // (8 if blob.double else 4)
    if blob.elements > MAX_ELEMENTS or blob.elements != held:
        raise RefusedError(
            "a blob's shape in the caffemodel does not match its data",
            seen=f"{place}: {shown}, which is {blob.elements} numbers, but it has {held}",
            next=_AGAIN,
        )


def merged(shape: tuple[int, ...], expected: tuple[int, ...]) -> bool:
    """Whether a blob of *shape* may stand for *expected*.

    V0 and V1 pad shapes with leading ones (1, 1, 1, N is N).
    """
    if shape == expected:
        return True
    ones = len(shape) - len(expected)
    return len(shape) == 4 and ones > 0 and shape == (1,) * ones + expected


def write_weights(path: Path, name: str, layers: Iterable[tuple[WeightLayer, list[Floats]]]) -> None:
    """Write a V2 caffemodel.

    It holds each layer's name, type, unknown fields and *float32* blobs, and nothing of training.
    """
    with path.open("wb") as file:
        if name:
            file.write(delimited(1, name.encode()))
        for layer, blobs in layers:
            body = [delimited(1, layer.name.encode()), delimited(2, layer.type.encode())]
            body += [
                delimited(
                    7,
                    delimited(7, delimited(1, b"".join(map(encoded, b.shape))))
                    + delimited(5, b.astype("<f4").tobytes()),
                )
                for b in blobs
            ]
            file.write(delimited(100, b"".join(body) + layer.unknown))
