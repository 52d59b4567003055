"""The place of a tensor's values: pieces of files, and how to read them in row-major order.

A :class:`Tensor` is made of pieces, boxes that tile its ``grid`` (its shape, or ``(elements,)`` where
partitions cut through the flat values).  Nothing is read until the values are asked for, and then in
blocks of bounded size, whatever the strides; NumPy is imported only then, since a description of a file needs
none.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from mnnprep.errors import RefusedError
from mnnprep.safety.damage import AGAIN
from mnnprep.weights.dtypes import MOST_DIMENSIONS, bits_of, byte_size
from mnnprep.weights.files import File

if TYPE_CHECKING:
    import numpy.typing as npt

Shape = tuple[int, ...]
BLOCK_BYTES = 8 << 20  # of values read at once
SPARSE = 1 << 16  # bytes below which the gaps between strided elements are read along
SHORTEST_RUN = 1 << 15  # bytes; shorter ones are gathered in memory instead of copied one by one


@dataclass(frozen=True)
class Piece:
    """The box of ``shape`` at ``start`` of the grid, its first element at byte ``offset`` of ``file``.

    ``strides`` are in elements, by axis of the box; None means row-major without gaps.
    """

    file: File
    offset: int
    shape: Shape
    start: Shape
    strides: Shape | None = None

    @property
    def elements(self) -> int:
        """The number of elements."""
        return math.prod(self.shape)

    def contiguous(self) -> bool:
        """Whether the elements lie one after the other in row-major order."""
        return self.strides is None or packed(self.shape, self.strides)


@dataclass(frozen=True)
class Run:
    """``length`` bytes at ``offset`` of ``file``."""

    file: File
    offset: int
    length: int


@dataclass(frozen=True, eq=False)
class Tensor:
    """A tensor of a checkpoint as the pieces of files that hold it.

    ``dtype`` is NumPy's or ml_dtypes' name.
    """

    dtype: str
    shape: Shape
    pieces: tuple[Piece, ...]
    grid: Shape = field(default=())

    def __post_init__(self) -> None:
        if len(self.shape) > MOST_DIMENSIONS:
            raise RefusedError(
                "a tensor of the checkpoint has more dimensions than any framework takes",
                seen=f"{len(self.shape)} dimensions",
                next=AGAIN,
            )
        if not self.grid and self.shape:
            object.__setattr__(self, "grid", self.shape)

    @property
    def elements(self) -> int:
        """The number of elements."""
        return math.prod(self.shape)

    @property
    def nbytes(self) -> int:
        """The bytes that the elements take."""
        return byte_size(self.dtype, self.elements)

    def runs(self) -> list[Run] | None:
        """Return the bytes in row-major order as runs long enough to be copied one by one.

        None if they are not.
        """
        if len(self.pieces) == 1 and self.pieces[0].contiguous() and self.pieces[0].elements == self.elements:
            file, offset = self.pieces[0].file.locate(self.pieces[0].offset)
            return [Run(file, offset, self.nbytes)]
        item = bits_of(self.dtype) // 8
        found: list[tuple[int, Run]] = []
        for piece in self.pieces:
            if not piece.elements:
                continue
            if (
                any(n != whole for n, whole in zip(piece.shape[1:], self.grid[1:], strict=True))
                or not piece.contiguous()
            ):
                return None
            file, offset = piece.file.locate(piece.offset)
            found.append(
                (piece.start[0] * math.prod(self.grid[1:]), Run(file, offset, piece.elements * item))
            )
        found.sort(key=lambda pair: pair[0])
        at = 0
        for element, run in found:
            if element * item != at:
                return None
            at += run.length
        long_enough = sum(run.length for _, run in found) >= SHORTEST_RUN * len(found) or len(found) < 16
        return [run for _, run in found] if at == self.nbytes and long_enough else None

    def key(self) -> tuple[object, ...] | None:
        """The same for tensors that are one in memory; None if there are no values."""
        if not self.elements:
            return None
        where = tuple(
            (*((id(f), o) for f, o in [p.file.locate(p.offset)]), p.shape, p.start, p.strides or ())
            for p in self.pieces
        )
        return (self.dtype, self.shape, where)

    def blocks(self, limit: int = BLOCK_BYTES) -> Iterator[npt.NDArray[Any]]:
        """The values in row-major order as 1-D arrays of unsigned integers of the element's size."""
        if self.elements:
            for begin, extent in boxes(self.grid, bits_of(self.dtype) // 8, limit):
                yield self.box(begin, extent).reshape(-1)

    def box(self, begin: Shape, extent: Shape) -> npt.NDArray[Any]:
        """The values of one box of the grid."""
        import numpy as np

        item = bits_of(self.dtype) // 8
        out = np.empty(extent, RAW[item])
        for piece in self.pieces:
            low = tuple(max(b, s) for b, s in zip(begin, piece.start, strict=True))
            high = tuple(
                min(b + e, s + n) for b, e, s, n in zip(begin, extent, piece.start, piece.shape, strict=True)
            )
            if any(h <= lo for lo, h in zip(low, high, strict=True)):
                continue
            strides = piece.strides if piece.strides is not None else row_major(piece.shape)
            offset = piece.offset + item * sum(
                (lo - s) * step for lo, s, step in zip(low, piece.start, strides, strict=True)
            )
            where: tuple[Any, ...] = (
                ...,
                *(slice(lo - b, h - b) for lo, h, b in zip(low, high, begin, strict=True)),
            )
            target = out[where]  # a view, also of a scalar
            _fill(target, piece.file, offset, strides, item)
        return out

    def array(self) -> npt.NDArray[Any]:
        """All values, as unsigned integers of the element's size, in the tensor's shape."""
        import numpy as np

        whole = (
            self.box((0,) * len(self.grid), self.grid)
            if self.elements
            else np.empty(self.grid, RAW[max(1, bits_of(self.dtype) // 8)])
        )
        return whole.reshape(self.shape)

    def sources(self) -> set[File]:
        """The files that its bytes are in."""
        return {piece.file.locate(piece.offset)[0] for piece in self.pieces if piece.elements}

    def release(self) -> None:
        """Give back what reading it left in memory."""
        for piece in self.pieces:
            piece.file.release()


@dataclass(frozen=True, eq=False)
class Made(Tensor):
    """A tensor that ``make`` gives whole, in row-major order, when its values are asked for.

    ``same`` is equal for one tensor's names.
    """

    make: Callable[[], npt.NDArray[Any]] | None = None
    same: object = None

    def runs(self) -> list[Run] | None:
        """Return None: the values have to be made."""
        return None

    def key(self) -> tuple[object, ...] | None:
        """Return what equal tensors share; None for one without elements."""
        return ("made", self.same, self.dtype, self.shape) if self.elements else None

    def blocks(self, limit: int = BLOCK_BYTES) -> Iterator[npt.NDArray[Any]]:
        """Yield the values in row-major order, at most *limit* bytes at a time."""
        if self.elements:
            flat = self.array().reshape(-1)
            step = max(1, limit // flat.itemsize)
            for at in range(0, flat.size, step):
                yield flat[at : at + step]

    def array(self) -> npt.NDArray[Any]:
        """Return the tensor, made now."""
        assert self.make is not None
        return self.make()


RAW = {1: "u1", 2: "u2", 4: "u4", 8: "u8", 16: "c16"}  # NumPy's dtypes by the bytes of an element


def stored(dtype: str, shape: Shape, file: File, offset: int, strides: Shape | None = None) -> Tensor:
    """A tensor in one piece."""
    return Tensor(dtype, shape, (Piece(file, offset, shape, (0,) * len(shape), strides),))


def zeros(dtype: str, shape: Shape) -> Made:
    """A tensor of zeros that is in no file."""
    import numpy as np

    return Made(dtype, shape, (), make=lambda: np.zeros(shape, RAW[max(1, bits_of(dtype) // 8)]))


def row_major(shape: Shape) -> Shape:
    """The strides of *shape* without gaps, in elements."""
    return tuple(math.prod(shape[i + 1 :]) for i in range(len(shape)))


def packed(shape: Shape, strides: Shape) -> bool:
    """Whether *strides* are row-major; those of axes of length 1 don't matter."""
    return all(
        n == 1 or have == right for n, have, right in zip(shape, strides, row_major(shape), strict=True)
    )


def check_tiling(name: str, grid: Shape, pieces: tuple[Piece, ...]) -> None:
    """Raise RefusedError unless *pieces* lie inside *grid*, don't overlap and cover it."""
    for piece in pieces:
        if any(
            s < 0 or n < 0 or s + n > whole
            for s, n, whole in zip(piece.start, piece.shape, grid, strict=True)
        ):
            raise _untiled(name, grid, f"a piece {piece.shape} at {piece.start} lies outside")
    total = sum(piece.elements for piece in pieces)
    if total != math.prod(grid):
        raise _untiled(name, grid, f"its {len(pieces)} pieces hold {total} of {math.prod(grid)} elements")
    ordered = sorted((p for p in pieces if p.elements), key=lambda p: p.start)
    for index, one in enumerate(ordered):
        for other in (ordered[k] for k in range(index + 1, len(ordered))):
            if one.start and other.start[0] >= one.start[0] + one.shape[0]:
                break  # and so do all that follow
            _require_apart(name, grid, one, other)


def _require_apart(name: str, grid: Shape, one: Piece, other: Piece) -> None:
    if all(
        a < b + m and b < a + n
        for a, n, b, m in zip(one.start, one.shape, other.start, other.shape, strict=True)
    ):
        raise _untiled(name, grid, f"the pieces at {one.start} and {other.start} overlap")


def _untiled(name: str, grid: Shape, reason: str) -> RefusedError:
    return RefusedError(
        "the pieces of a tensor don't add up to it",
        seen=f"{name} {list(grid)}: {reason}",
        next="check that the files of every rank are there, and from one save",
    )


def boxes(shape: Shape, item: int, limit: int) -> Iterator[tuple[Shape, Shape]]:
    """Return boxes of at most about *limit* bytes that cover *shape* in row-major order.

    Each is contiguous in that order.
    """
    if not shape:
        yield (), ()
        return
    inner = [item * math.prod(shape[axis + 1 :]) for axis in range(len(shape))]
    axis = next(i for i, size in enumerate(inner) if size <= limit or i == len(shape) - 1)
    step = max(1, limit // max(1, inner[axis]))
    for lead in itertools.product(*(range(n) for n in shape[:axis])):
        for at in range(0, shape[axis], step):
            begin = (*lead, at, *(0 for _ in shape[axis + 1 :]))
            yield begin, (*(1 for _ in lead), min(step, shape[axis] - at), *shape[axis + 1 :])


def bytes_of(array: npt.NDArray[Any]) -> memoryview:
    """The memory of a contiguous array, to be read or filled."""
    import numpy as np

    return array.reshape(-1).view(np.uint8).data


def _fill(out: npt.NDArray[Any], file: File, offset: int, strides: Shape, item: int) -> None:
    """Read the strided elements into *out*; if gaps dominate, the widest axis is halved."""
    import numpy as np

    if out.flags.c_contiguous and packed(out.shape, strides):
        file.read_into(offset, bytes_of(out))
        return
    span = item * (1 + sum((n - 1) * step for n, step in zip(out.shape, strides, strict=True)))
    if span <= max(2 * out.nbytes, SPARSE):
        raw = np.frombuffer(file.read(offset, span), np.uint8)
        out[...] = np.ndarray(out.shape, out.dtype, raw.data, 0, tuple(step * item for step in strides))
        return
    axis = max((i for i, n in enumerate(out.shape) if n > 1), key=lambda i: strides[i])
    middle = out.shape[axis] // 2
    head, tail = (slice(None),) * axis, (slice(None),) * (out.ndim - axis - 1)
    _fill(out[(*head, slice(0, middle), *tail)], file, offset, strides, item)
    _fill(
        out[(*head, slice(middle, None), *tail)], file, offset + middle * strides[axis] * item, strides, item
    )
