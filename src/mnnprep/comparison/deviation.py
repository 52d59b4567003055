"""How far one value inside a net is from its reference: one number, in units of the tolerance."""

from __future__ import annotations

import math

import msgspec
import numpy as np

from mnnprep.comparison.tolerance import CASE_SLACK_DB, LARGEST, Array, Tolerance

CHUNK = 1 << 18  # elements compared at a time: a large value needs no copy of itself


class Deviation(msgspec.Struct, frozen=True, kw_only=True):
    """How far two values are apart.

    ``excess`` is the largest |a-b| divided by what is allowed there: above 1 is wrong, LARGEST if the two
    can't be compared.

    ``reshaped``: the same number of elements in another shape, as MNN keeps some values inside a net.
    """

    excess: float = 0.0
    max_abs: float = 0.0
    problem: str = ""
    reshaped: bool = False


def deviation(
    reference: Array, actual: Array, tolerance: Tolerance, name: str = "", case: int = 0
) -> Deviation:
    """Compare two values element by element, whatever their shapes and dtypes say.

    The noise floor is that of the output *name* in *case*.

    Integers must be equal, but for one that MNN's 32 bits can't hold: it may stand at their end, as the ends
    of slices do.
    """
    if reference.size != actual.size:
        return Deviation(
            excess=LARGEST,
            problem=f"shape {list(actual.shape)}, but the reference has {list(reference.shape)}",
        )
    reshaped = reference.shape != actual.shape
    a, b = reference.reshape(-1), actual.reshape(-1)
    if reference.dtype.kind != "f":
        wrong = sum(int(np.count_nonzero(~_equal(a[s], b[s]))) for s in _slices(a.size))
        problem = f"{wrong} of {a.size} elements differ" if wrong else ""
        return Deviation(excess=LARGEST if wrong else 0.0, problem=problem, reshaped=reshaped)
    peak = max((_peak(a[s]) for s in _slices(a.size)), default=0.0)
    worst = largest = noise = power = 0.0
    for s in _slices(a.size):
        x, y = a[s].astype(np.float64), b[s].astype(np.float64)
        finite = np.isfinite(x)
        if not (
            np.array_equal(finite, np.isfinite(y)) and np.array_equal(x[~finite], y[~finite], equal_nan=True)
        ):
            return Deviation(
                excess=LARGEST,
                max_abs=LARGEST,
                problem="NaN or infinity at other places than in the reference",
                reshaped=reshaped,
            )
        x, y = x[finite], y[finite]
        with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
            error = np.abs(x - y)
            allowed = tolerance.floor(name, case, peak) + tolerance.relative * np.abs(x)
            worst = max(worst, float(np.where(error == 0, 0.0, error / allowed).max(initial=0.0)))
            scale = peak or 1.0
            noise, power = (
                noise + float(np.square(error / scale).sum()),
                power + float(np.square(x / scale).sum()),
            )
        largest = max(largest, float(error.max(initial=0.0)))
    if tolerance.sqnr_db is not None and noise > 0:
        sqnr = 10 * math.log10(power / noise) if power > 0 else -math.inf
        worst = 10 ** min((tolerance.sqnr_db - CASE_SLACK_DB - sqnr) / 20, 299.0)
    worst, largest = min(worst, LARGEST), min(largest, LARGEST)
    return Deviation(
        excess=worst,
        max_abs=largest,
        problem=f"max abs {largest:.3g}" if worst > 1 else "",
        reshaped=reshaped,
    )


def _slices(size: int) -> list[slice]:
    return [slice(at, at + CHUNK) for at in range(0, size, CHUNK)]


def _peak(values: Array) -> float:
    return float(np.abs(values[np.isfinite(values)]).max(initial=0.0))


def _equal(reference: Array, actual: Array) -> Array:
    if reference.dtype.kind not in "iu" or reference.dtype.itemsize < 8:
        return np.asarray(reference == actual)
    limits = np.iinfo(np.int32)
    return np.asarray((reference == actual) | (np.clip(reference, limits.min, limits.max) == actual))
