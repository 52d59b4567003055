"""Comparing two runs of a net: structure first, then numbers, within a stated tolerance."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import msgspec
import numpy as np
import numpy.typing as npt

from mnnprep.core.evidence import OutputError

Array = npt.NDArray[Any]

ABSOLUTE = 1e-4  # of max|ref|
RELATIVE = 1e-3  # of |ref|, element by element
WIDENING = 10.0  # times the source's measured noise floor
CASE_SLACK_DB = 6.0  # a factor of 2 in amplitude
LARGEST = 1e300  # what a ratio beyond a float is written as
CEILING = 1e-2  # of max|ref|: beyond, the model can't be told from its noise
HALF_SQNR = 50.0  # dB: weights as float16
QUANTIZED_SQNR = 30.0  # dB: weights as integers; less only where the caller says so


class Tolerance(msgspec.Struct, frozen=True):
    """|a-b| <= max(absolute * max|ref|, widening * noise) + relative * |ref|, for every element.

    The first term never exceeds ``ceiling * max|ref|``.  ``noise`` is the measured noise floor
    of each output, in its own unit; integers and booleans must be exact.  A float16 output needs an
    SQNR of HALF_SQNR instead, since its own rounding is coarser than the formula.  With ``sqnr_db`` set
    (float16 and quantized artifacts) the SQNR of an output decides instead: that over all cases must reach it, and
    no single case, whose few numbers are a small sample of the noise, may be more than ``case_slack_db`` below.
    """

    noise: dict[str, float] = msgspec.field(default_factory=dict)
    absolute: float = ABSOLUTE
    relative: float = RELATIVE
    widening: float = WIDENING
    ceiling: float = CEILING
    sqnr_db: float | None = None
    case_slack_db: float = CASE_SLACK_DB

    def threshold(self, name: str, reference: Array) -> Array:
        """The largest |a-b| allowed at each element of a floating *reference* (float64)."""
        magnitude = np.abs(np.where(np.isfinite(reference), reference, 0).astype(np.float64))
        peak = float(magnitude.max(initial=0.0))
        floor = min(max(self.absolute * peak, self.widening * self.noise.get(name, 0.0)), self.ceiling * peak)
        return np.asarray(floor + self.relative * magnitude)

    def drowned(self, name: str, reference: Array) -> bool:
        """Whether the noise floor is so high that the ceiling would have to give way."""
        peak = float(np.abs(np.where(np.isfinite(reference), reference, 0)).max(initial=0.0))
        return self.widening * self.noise.get(name, 0.0) > self.ceiling * peak


def compare_output(name: str, case: int, reference: Array, actual: Array, tolerance: Tolerance, narrowed: str = "") -> OutputError:
    """Compare one output: shape, dtype, non-finite positions, then numbers.

    ``narrowed`` is the dtype the runtime is known to give in place of the reference's
    (MNN: int64 -> int32); a reference value it can't hold is a problem, not a difference to hide.
    """
    if reference.shape != actual.shape:
        return OutputError(name, case, problem=f"shape {list(actual.shape)} where the reference has {list(reference.shape)}")
    if actual.dtype != np.dtype(narrowed or reference.dtype):
        return OutputError(name, case, problem=f"dtype {actual.dtype} where the reference has {reference.dtype}")
    if reference.dtype.kind != "f":
        return _compare_exact(name, case, reference, actual)
    ref, act = reference.astype(np.float64), actual.astype(np.float64)
    for label, test in (("NaN", np.isnan), ("+inf", np.isposinf), ("-inf", np.isneginf)):
        wrong = int(np.count_nonzero(test(ref) != test(act)))
        if wrong:
            return OutputError(name, case, problem=f"{label} at other places than in the reference ({wrong} elements)")
    finite = np.isfinite(ref)
    ref, act = ref[finite], act[finite]
    limit = tolerance.threshold(name, reference)[finite]
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        error = np.abs(ref - act)
        excess = float(np.where(error == 0, 0.0, error / limit).max(initial=0.0))
        max_rel = float(np.where(ref != 0, error / np.abs(ref), 0.0).max(initial=0.0))
    ref, act = _scaled(ref, act)
    noise_power, power = float(np.square(ref - act).sum()), float(np.square(ref).sum())
    sqnr = 10 * math.log10(power / noise_power) if noise_power > 0 and power > 0 else None
    norm = math.sqrt(power) * float(np.linalg.norm(act))
    cosine = min(1.0, float(np.dot(ref.ravel(), act.ravel())) / norm) if norm > 0 else None
    wanted = tolerance.sqnr_db - tolerance.case_slack_db if tolerance.sqnr_db is not None else HALF_SQNR if reference.dtype == np.float16 else None
    if wanted is not None:
        excess = 0.0 if noise_power == 0 else (math.inf if sqnr is None else 10 ** ((wanted - sqnr) / 20))
    problem = ""
    if excess > 1:
        index = [int(i) for i in np.argwhere(finite)[int(np.argmax(error / np.maximum(limit, 1e-300)))]] if error.size else []
        problem = f"differs beyond the tolerance, most at {index}: max abs {float(error.max()):.3g}, {min(excess, LARGEST):.3g} times what is allowed"
    return OutputError(
        name, case, max_abs=min(float(error.max(initial=0.0)), LARGEST), max_rel=min(max_rel, LARGEST), cosine=cosine, sqnr_db=sqnr,
        excess=min(excess, LARGEST), problem=problem,
    )  # fmt: skip


def _scaled(ref: Array, act: Array) -> tuple[Array, Array]:
    """Both times one power of 2, so that no square of them overflows or vanishes."""
    peak = max(float(np.abs(ref).max(initial=0.0)), float(np.abs(act).max(initial=0.0)))
    shift = -math.frexp(peak)[1]
    return np.ldexp(ref, shift), np.ldexp(act, shift)


def _compare_exact(name: str, case: int, reference: Array, actual: Array) -> OutputError:
    equal = reference == actual
    if actual.dtype != reference.dtype:  # one comparison rounds, the other cuts off: both must hold
        with np.errstate(invalid="ignore"):
            equal &= reference == actual.astype(reference.dtype)
    wrong = int(np.count_nonzero(~np.asarray(equal)))
    if not wrong:
        return OutputError(name, case, max_abs=0.0, max_rel=0.0, excess=0.0)
    if reference.dtype.kind in "iub":
        gap = float(np.abs(reference.astype(np.float64) - actual.astype(np.float64)).max())
    else:
        gap = 0.0
    return OutputError(name, case, max_abs=gap, problem=f"{wrong} of {reference.size} elements differ; integers and booleans must be equal")


def compare_outputs(
    case: int, reference: Mapping[str, Array], actual: Mapping[str, Array], tolerance: Tolerance, narrowed: Mapping[str, str] | None = None
) -> list[OutputError]:
    """Compare two runs, output by output; a missing or surplus output is a problem of its own."""
    results = []
    for name, array in reference.items():
        if name in actual:
            results.append(compare_output(name, case, array, actual[name], tolerance, (narrowed or {}).get(name, "")))
        else:
            results.append(OutputError(name, case, problem="the output is missing"))
    results += [OutputError(name, case, problem="an output the reference does not have") for name in actual if name not in reference]
    return results
