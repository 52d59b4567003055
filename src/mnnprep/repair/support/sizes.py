"""Arithmetic on sizes that are numbers or values of the graph.

What is known stays a number, so that a model of fixed sizes gets constants; what is open is computed from
Shape, as one int64 in a list of one.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeAlias

import numpy as np

from mnnprep.repair.support.building import Builder
from mnnprep.repair.support.opsets import SINCE

if TYPE_CHECKING:
    import onnx_ir as ir

    from mnnprep.repair.support.reading import Operand

    Size: TypeAlias = int | ir.Value


class Sizes:
    """The sizes of *value*, of *rank* axes, as far as they are known, else computed."""

    def __init__(self, build: Builder, value: Operand, rank: int) -> None:
        self._build, self._value, self.rank = build, value, rank
        self._dims = build.editor.view.dims(value)
        self._shape: ir.Value | None = None

    def __getitem__(self, axis: int) -> Size:
        known = self._dims[axis] if self._dims is not None else None
        return known if isinstance(known, int) else self._build.slice(self.shape, 0, axis, axis + 1)

    @property
    def shape(self) -> ir.Value:
        """The sizes as one list."""
        if self._shape is None:
            self._shape = self._build.op("Shape", self._value)
        return self._shape

    def among(self, start: int, end: int) -> list[Size]:
        """The sizes of the axes from *start* to *end*."""
        return [self[axis] for axis in range(start, end)]


def product(build: Builder, sizes: list[Size]) -> Size:
    """All *sizes* multiplied; 1 for none."""
    total: Size = 1
    for size in sizes:
        total = times(build, total, size)
    return total


def times(build: Builder, left: Size, right: Size) -> Size:
    """*left* times *right*."""
    if isinstance(left, int) and isinstance(right, int):
        return left * right
    if left == 1 or right == 1:
        return right if left == 1 else left
    return build.op("Mul", value_of(build, left), value_of(build, right))


def value_of(build: Builder, size: Size) -> ir.Value:
    """*size* as a list of one int64."""
    return build.ints(size) if isinstance(size, int) else size


def reshaped(build: Builder, value: Operand, sizes: list[Size]) -> ir.Value:
    """*value* in these *sizes*, of which one may be -1."""
    known = [size for size in sizes if isinstance(size, int)]
    if len(known) == len(sizes):
        return build.reshape(value, *known)
    if len(known) == len(sizes) - 1 and -1 not in known:  # the open one follows from the others
        return build.reshape(value, *(size if isinstance(size, int) else -1 for size in sizes))
    wanted = build.op("Concat", *(value_of(build, size) for size in sizes), axis=0)
    return build.op("Reshape", value, wanted)


def counting(build: Builder, size: Size) -> ir.Value:
    """The int64 numbers from 0 to below *size*.

    Before Range they are the places of the ones in a list of ones.
    """
    if isinstance(size, int):
        return build.ints(*range(size))
    if build.opset >= SINCE["Range"]:
        zero, one = (build.constant(np.array(number, np.int64)) for number in (0, 1))
        return build.op("Range", zero, build.squeeze(size, 0), one)
    ones = build.op("Expand", build.constant(np.ones(1, np.float32)), size)
    return build.reshape(build.op("NonZero", ones), -1)
