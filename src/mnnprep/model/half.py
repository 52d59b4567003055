"""The two types of half the width of float32, their limits, and rounding to them.

Format facts: IEEE 754-2008, binary16; bfloat16 is the upper half of binary32.
"""

from __future__ import annotations

from typing import Any, Literal

import msgspec
import numpy as np
import numpy.typing as npt

HalfType = Literal["float16", "bfloat16"]


class Limits(msgspec.Struct, frozen=True):
    """What a type can hold.

    ``largest`` is the largest finite number; ``normal`` the least at full precision; ``least`` the least
    above 0; ``bits`` counts those of the significand, the hidden one included.
    """

    largest: float
    normal: float
    least: float
    bits: int

    @property
    def overflow(self) -> float:
        """The least magnitude that is rounded to infinity."""
        return self.largest * (1 + 2.0**-self.bits / (2 - 2.0 ** (1 - self.bits)))


LIMITS: dict[HalfType, Limits] = {
    "float16": Limits(65504.0, 2.0**-14, 2.0**-24, 11),
    "bfloat16": Limits((2 - 2.0**-7) * 2.0**127, 2.0**-126, 2.0**-133, 8),
}


def rounded(array: npt.NDArray[Any], to: HalfType) -> npt.NDArray[Any]:
    """Return *array* with floating values rounded to *to* (nearest, ties to even), in its own dtype.

    A value beyond the type's range becomes infinite. Other dtypes are returned as they are.
    """
    if array.dtype.kind != "f":
        return array
    if to == "float16":
        with np.errstate(over="ignore", invalid="ignore"):
            return array.astype(np.float16).astype(array.dtype)
    with np.errstate(over="ignore", invalid="ignore"):
        narrow = np.ascontiguousarray(array, np.float32)
    bits = narrow.reshape(-1).view(np.uint32)
    up = bits + (((bits >> 16) & 1) + np.uint32(0x7FFF))
    held = (up & np.uint32(0xFFFF0000)).view(np.float32).reshape(array.shape)
    with np.errstate(over="ignore", invalid="ignore"):
        return np.where(np.isnan(narrow), narrow, held).astype(array.dtype)
