"""How large and how small the numbers of a model get, measured by running it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TypeAlias

import msgspec


class Magnitude(msgspec.Struct, frozen=True):
    """The magnitudes of one value over all cases: the ``largest``, and the ``least`` that is not 0.

    Both are finite; both are 0 for a value that was 0 throughout. An infinity or a NaN counts for neither:
    ``finite`` is False if there was one.
    """

    largest: float
    least: float
    finite: bool = True


Magnitudes: TypeAlias = Mapping[str, Magnitude]  # by the names of the values in the ONNX file


class Sum(msgspec.Struct, frozen=True):
    """What is added up behind one element of a result: how many ``terms``, and their magnitudes.

    ``magnitudes`` is the largest sum of |term| behind any element. Of ReduceL2, ReduceSumSquare and
    LpNormalization the terms are squares.
    """

    terms: int
    magnitudes: float


class Moved(msgspec.Struct, frozen=True):
    """How another way of computing it moves a value over all cases.

    ``sqnr_db`` is None if it does not move it, very negative where nothing is left of it.  Of the elements
    that were finite, ``infinite`` are not any more; of those that were not 0, ``vanished`` are.
    """

    sqnr_db: float | None
    infinite: int
    vanished: int


class Measured(msgspec.Struct, frozen=True, kw_only=True):
    """What an instrumented run tells of a model.

    ``values`` has the floating values of the main graph (inputs, initializers and results), ``sums`` the
    results that sums are behind, ``moved`` the values that another model computes too, if one was given.
    ``left_out`` are the nodes whose bodies (If, Loop, Scan) were not looked into.
    """

    values: dict[str, Magnitude] = msgspec.field(default_factory=dict)
    sums: dict[str, Sum] = msgspec.field(default_factory=dict)
    moved: dict[str, Moved] = msgspec.field(default_factory=dict)
    left_out: list[str] = msgspec.field(default_factory=list)
