"""Changing a floating dtype, block by block, with the worst rounding error."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import msgspec
import numpy as np
import numpy.typing as npt

from mnnprep.errors import RefusedError
from mnnprep.weights.dtypes import bits_of, numpy_dtype
from mnnprep.weights.files import File
from mnnprep.weights.plan import BLOCK_BYTES, RAW, Run, Tensor

CHUNK = 1 << 17  # elements rounded at once: what the caches hold


class Rounding(msgspec.Struct, kw_only=True):
    """The effect of a change of dtype on one tensor.

    It is the worst absolute error, and that over the largest magnitude.
    """

    name: str
    source: str
    target: str
    worst: float = 0.0
    relative: float = 0.0
    largest: float = 0.0


def converted(tensor: Tensor, target: str, rounding: Rounding) -> Iterator[npt.NDArray[Any]]:
    """The blocks of *tensor* in *target*, rounded to nearest even; *rounding* is brought up to date.

    Raises:
        RefusedError: a finite value that *target* can't hold.
    """
    source, wanted = numpy_dtype(tensor.dtype), numpy_dtype(target)
    # The difference of a number and its rounding is exact in the wider type (Sterbenz), so float32 is enough
    # for float32.
    wide = np.dtype(np.float64 if source == np.float64 else np.float32)
    scratch = np.empty((2, CHUNK), wide)
    for block in tensor.blocks():
        values = block.view(source)
        rounded = np.empty(values.shape, wanted)
        for at in range(0, values.size, CHUNK):
            part = values[at : at + CHUNK]
            with np.errstate(over="ignore", invalid="ignore"):
                np.copyto(rounded[at : at + CHUNK], part, casting="unsafe")
                _measure(part, rounded[at : at + CHUNK], scratch[:, : part.size], rounding)
        yield rounded
    rounding.relative = rounding.worst / rounding.largest if rounding.largest else 0.0


def _measure(
    values: npt.NDArray[Any], rounded: npt.NDArray[Any], scratch: npt.NDArray[Any], rounding: Rounding
) -> None:
    """Bring *rounding* up to date; *scratch* is room for two arrays in the wider type."""
    error, after = scratch
    np.copyto(after, rounded, casting="unsafe")
    exact: npt.NDArray[Any] = values.astype(scratch.dtype, copy=False)
    np.abs(np.subtract(exact, after, out=error), out=error)
    worst = float(error.max())
    if not math.isfinite(worst):
        finite = np.isfinite(exact)
        if bool((finite & ~np.isfinite(after)).any()):
            raise RefusedError(
                f"a value is too large for {rounding.target}",
                seen=f"{rounding.name}: {np.abs(exact[finite]).max():g}",
                next="use --dtype bfloat16 or float32",
            )
        exact = exact[finite]
        worst = float(error[finite].max(initial=0.0))
    if exact.size:
        rounding.worst = max(rounding.worst, worst)
        rounding.largest = max(rounding.largest, float(exact.max()), -float(exact.min()))


@dataclass(frozen=True, eq=False)
class Changed(Tensor):
    """``base`` in another floating dtype; rounded when it is read."""

    base: Tensor | None = None
    rounding: Rounding | None = None

    def runs(self) -> list[Run] | None:
        """Return None: the bytes are not in a file as they are wanted."""
        return None

    def key(self) -> tuple[object, ...] | None:
        """Return what equal tensors share: the base's key and the dtype."""
        assert self.base is not None
        below = self.base.key()
        return ("changed", self.dtype, below) if below is not None else None

    def blocks(self, limit: int = BLOCK_BYTES) -> Iterator[npt.NDArray[Any]]:
        """Yield the values in the new dtype, block by block, as unsigned integers of its width."""
        assert self.base is not None and self.rounding is not None
        for block in converted(self.base, self.dtype, self.rounding):
            yield block.view(RAW[bits_of(self.dtype) // 8])

    def array(self) -> npt.NDArray[Any]:
        """Return all values in the new dtype as unsigned integers of its width."""
        blocks = list(self.blocks())
        return (
            np.concatenate(blocks).reshape(self.shape)
            if blocks
            else np.empty(self.shape, RAW[bits_of(self.dtype) // 8])
        )

    def sources(self) -> set[File]:
        """Return the files that the base is read from."""
        return self.base.sources() if self.base is not None else set()

    def release(self) -> None:
        """Let go of what the base keeps in memory."""
        if self.base is not None:
            self.base.release()
