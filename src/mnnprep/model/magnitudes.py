"""How large and how small the numbers of a model get, measured by running it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TypeAlias

import msgspec


class Magnitude(msgspec.Struct, frozen=True):
    """The magnitudes of one value over all cases: the ``largest``, and the ``least`` that is not 0.

    Both are finite; both are 0 for a value that was 0 throughout. An infinity or a NaN counts for neither.
    """

    largest: float
    least: float


Magnitudes: TypeAlias = Mapping[str, Magnitude]  # by the names of the values in the ONNX file
