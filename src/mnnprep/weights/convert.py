"""Changing a floating dtype, block by block, with the worst rounding error."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import msgspec
import numpy as np
import numpy.typing as npt

from mnnprep.errors import RefusedError
from mnnprep.weights.dtypes import numpy_dtype
from mnnprep.weights.plan import Tensor


class Rounding(msgspec.Struct, kw_only=True):
    """What a change of dtype did to one tensor: the worst absolute error, and that over the largest magnitude."""

    name: str
    source: str
    target: str
    worst: float = 0.0
    relative: float = 0.0
    largest: float = 0.0


def converted(name: str, tensor: Tensor, target: str, rounding: Rounding) -> Iterator[npt.NDArray[Any]]:
    """The blocks of *tensor* in *target*, rounded to nearest even; *rounding* is brought up to date.

    Raises RefusedError for a finite value that *target* can't hold.
    """
    source, wanted = numpy_dtype(tensor.dtype), numpy_dtype(target)
    for block in tensor.blocks():
        values = block.view(source)
        with np.errstate(over="ignore", invalid="ignore"):
            rounded = values.astype(wanted)
            exact, after = values.astype(np.float64), rounded.astype(np.float64)
        finite = np.isfinite(exact)
        if bool((finite & ~np.isfinite(after)).any()):
            raise RefusedError(
                f"a value is too large for {target}", seen=f"{name}: {np.abs(exact[finite]).max():g}", next="use --dtype bfloat16 or float32"
            )
        if finite.any():
            rounding.worst = max(rounding.worst, float(np.abs(exact[finite] - after[finite]).max()))
            rounding.largest = max(rounding.largest, float(np.abs(exact[finite]).max()))
        yield rounded
    rounding.relative = rounding.worst / rounding.largest if rounding.largest else 0.0
