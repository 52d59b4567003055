"""The orders of a tensor's values that exporters choose between, and the values as they are compared."""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Iterable
from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]


def layouts(array: Array) -> Iterable[Array]:
    """The array, and its axes permuted if that moves values (up to four axes longer than 1)."""
    yield array
    squeezed = array.squeeze()
    if 2 <= squeezed.ndim <= 4:
        for axes in itertools.permutations(range(squeezed.ndim)):
            if axes != tuple(range(squeezed.ndim)):
                yield squeezed.transpose(axes)


def bits(array: Array) -> Array:
    """Return the values as unsigned integers of the same width, so that -0, NaN and every ulp count.

    They are integers of halves if there is none as wide; text as its hashes.
    """
    flat = np.ascontiguousarray(array).reshape(-1)
    if flat.dtype.kind in "OSU":
        return np.array(
            [int.from_bytes(hashlib.blake2b(_text(v), digest_size=8).digest()) for v in flat], "u8"
        )
    width = flat.dtype.itemsize
    return flat.view(f"u{width}" if width in (1, 2, 4, 8) else "u4")


def _text(value: object) -> bytes:
    return value if isinstance(value, bytes) else str(value).encode()
