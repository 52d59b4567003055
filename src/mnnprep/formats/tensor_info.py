"""Name, dtype and shape of a tensor, as a file states them; nothing heavy is imported."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from mnnprep.weights.dtypes import BITS


class TensorInfo(msgspec.Struct, frozen=True):
    """One tensor: an input, an output or a stored weight.

    ``dtype`` is NumPy's or ml_dtypes' name, empty if the file does not say.  A dimension is a size,
    a symbolic name, or None if it is open; ``shape`` is None if not even the rank is known.
    """

    name: str
    dtype: str = ""
    shape: tuple[int | str | None, ...] | None = None


MAX_ELEMENTS = 1 << 48  # no tensor is larger: beyond, a shape is damage


def element_count(shape: Sequence[int]) -> int:
    """Return the number of elements.

    1 for a scalar, MAX_ELEMENTS + 1 for all that is more, however many dimensions a damaged file states.
    """
    count = 1 if 0 not in shape else 0
    for size in shape:
        count *= size
        if abs(count) > MAX_ELEMENTS:
            return MAX_ELEMENTS + 1
    return count


def byte_count(dtype: str, elements: int) -> int | None:
    """The bytes that *elements* of *dtype* take when packed; None if an element has no fixed size."""
    bits = BITS.get(dtype)
    return None if bits is None else (bits * elements + 7) // 8
