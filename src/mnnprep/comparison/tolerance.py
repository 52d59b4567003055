"""Comparing two runs of a net: structure first, then numbers, within a stated tolerance."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import msgspec
import numpy as np
import numpy.typing as npt

from mnnprep.comparison.steps import allowed_steps, steps_off
from mnnprep.evidence.check import OutputError
from mnnprep.model.precision import HALF_SQNR, QUANTIZED_SQNR
from mnnprep.model.steps import Step

Array = npt.NDArray[Any]

ABSOLUTE = 1e-4  # of max|ref|
RELATIVE = 1e-3  # of |ref|, element by element
WIDENING = 10.0  # times the source's measured noise floor
CASE_SLACK_DB = 6.0  # a factor of 2 in amplitude
CHUNK = 1 << 17  # elements that are compared at a time
TINY = 1e-300  # in place of a tolerance of 0
NOT_FINITE: dict[str, Callable[[Array], Array]] = {"NaN": np.isnan, "+inf": np.isposinf, "-inf": np.isneginf}
LARGEST = 1e300  # what a ratio beyond a float is written as
CEILING = 1e-2  # of max|ref|: beyond, the model can't be told from its noise
ARTIFACT_SQNR = {"float16": HALF_SQNR, "int8": QUANTIZED_SQNR}  # of a TFLite artifact made at this precision
DEQUANTIZED_SQNR = 30.0  # dB: a quantized TFLite file as floats


class Tolerance(msgspec.Struct, frozen=True):
    """|a-b| <= max(absolute * max|ref|, widening * noise) + relative * |ref|, for every element.

    The first term never exceeds ``ceiling * max|ref|``.  ``noise`` is the measured noise floor of each output
    in each case, in the output's own unit, the cases in their order: None if the first case's leaves it
    far below what is allowed anyway, a lone number where a bundle has one for all cases.  Integers and
    booleans must be exact.  A float16 output needs an SQNR of HALF_SQNR instead, since its own rounding is
    coarser than the formula.  With ``sqnr_db`` set (float16 and quantized artifacts) the SQNR of an output
    decides instead: that over all cases must reach it, and no single case, whose few numbers are a small
    sample of the noise, may be more than ``case_slack_db`` below.  ``steps`` are those of the outputs of a
    net that rounds while it computes: such an output is judged by :mod:`mnnprep.comparison.steps`.
    """

    noise: dict[str, list[float | None] | float] = msgspec.field(default_factory=dict)
    absolute: float = ABSOLUTE
    relative: float = RELATIVE
    widening: float = WIDENING
    ceiling: float = CEILING
    sqnr_db: float | None = None
    case_slack_db: float = CASE_SLACK_DB
    steps: dict[str, Step] = msgspec.field(default_factory=dict)

    def noise_of(self, name: str, case: int) -> float:
        """The noise floor of an output in a case; 0 if none was measured."""
        floors = self.noise.get(name, 0.0)
        if isinstance(floors, list):
            floors = (floors[case] if case < len(floors) else None) or 0.0
        return floors

    def largest_noise(self) -> dict[str, float]:
        """The largest noise floor of every output in any case."""
        return {
            n: max((f or 0.0 for f in floors), default=0.0) if isinstance(floors, list) else floors
            for n, floors in self.noise.items()
        }

    def beyond_noise(self) -> Tolerance:
        """Return the tolerance beyond which nothing is the source's noise: without a ceiling and an SQNR."""
        return msgspec.structs.replace(self, ceiling=math.inf, sqnr_db=None)

    def threshold(self, name: str, reference: Array, case: int) -> Array:
        """The largest |a-b| allowed at each element of a floating *reference* (float64)."""
        magnitude = np.abs(np.where(np.isfinite(reference), reference, 0).astype(np.float64))
        return np.asarray(self.floor(name, case, peak_of(reference.reshape(-1))) + self.relative * magnitude)

    def floor(self, name: str, case: int, peak: float) -> float:
        """Return the part of the threshold that is the same for every element of a reference.

        *peak* is the largest magnitude of the reference.
        """
        wanted = max(self.absolute * peak, self.widening * self.noise_of(name, case))
        return wanted if math.isinf(self.ceiling) else min(wanted, self.ceiling * peak)

    def off(self, name: str, reference: Array, actual: Array) -> Array:
        """By how many steps each element of a stepped output is off, beyond what floats may be."""
        plain = Tolerance()
        return steps_off(self.steps[name], reference, actual, plain.threshold(name, reference, 0))

    def lost_in_noise(self, name: str, reference: Array, case: int) -> bool:
        """Whether the noise floor is so high that the ceiling would have to give way; never of zeros.

        Steps have no noise but their own.
        """
        if name in self.steps:
            return False
        noise = self.noise_of(name, case)
        return (
            noise > 0
            and (peak := peak_of(reference.reshape(-1))) > 0
            and self.widening * noise > self.ceiling * peak
        )


def compare_output(
    name: str, case: int, reference: Array, actual: Array, tolerance: Tolerance, narrowed: str = ""
) -> OutputError:
    """Compare one output: shape, dtype, non-finite positions, then numbers.

    ``narrowed`` is the dtype the runtime is known to give in place of the reference's
    (MNN: int64 -> int32); a reference value it can't hold is a problem, not a difference to hide.
    """
    if reference.shape != actual.shape:
        return OutputError(
            name, case, problem=f"shape {list(actual.shape)}, but the reference has {list(reference.shape)}"
        )
    if actual.dtype != np.dtype(narrowed or reference.dtype):
        return OutputError(
            name, case, problem=f"dtype {actual.dtype}, but the reference has {reference.dtype}"
        )
    if name in tolerance.steps:
        return _compare_steps(name, case, reference, actual, tolerance)
    if reference.dtype.kind != "f":
        return _compare_exact(name, case, reference, actual)
    ref, act = reference.reshape(-1), actual.reshape(-1)
    problem = _misplaced(ref, act)
    if problem:
        return OutputError(name, case, problem=problem)
    peak = peak_of(ref)
    worst = _Worst(tolerance.floor(name, case, peak), tolerance.relative, max(peak, peak_of(act)))
    for chunk in chunks(ref.size):
        worst.add(chunk.start, ref[chunk], act[chunk])
    sqnr = 10 * math.log10(worst.power / worst.noise) if worst.noise > 0 and worst.power > 0 else None
    norm = math.sqrt(worst.power) * math.sqrt(worst.other)
    cosine = min(1.0, worst.product / norm) if norm > 0 else None
    excess = worst.excess
    wanted = (
        tolerance.sqnr_db - tolerance.case_slack_db
        if tolerance.sqnr_db is not None
        else HALF_SQNR
        if reference.dtype == np.float16
        else None
    )
    if wanted is not None:
        excess = 0.0 if worst.noise == 0 else (math.inf if sqnr is None else 10 ** ((wanted - sqnr) / 20))
    problem = ""
    if excess > 1:
        index = [int(i) for i in np.unravel_index(worst.place, reference.shape)] if reference.size else []
        problem = (
            f"differs beyond the tolerance, most at {index}: max abs {worst.max_abs:.3g},"
            f" {min(excess, LARGEST):.3g} times the allowed error"
        )
    return OutputError(
        name,
        case,
        max_abs=min(worst.max_abs, LARGEST),
        max_rel=min(worst.max_rel, LARGEST),
        cosine=cosine,
        sqnr_db=sqnr,
        excess=min(excess, LARGEST),
        problem=problem,
    )


def chunks(size: int) -> list[slice]:
    """Parts of a flat array that stay in a processor's cache while they are compared."""
    return [slice(at, min(at + CHUNK, size)) for at in range(0, size, CHUNK)]


def peak_of(values: Array) -> float:
    """The largest finite magnitude of a flat array; 0 if there is none."""
    peak = 0.0
    for chunk in chunks(values.size):
        part = values[chunk].astype(np.float64)
        extremes = float(part.max()), float(part.min())
        if not all(map(math.isfinite, extremes)):
            part = part[np.isfinite(part)]
            extremes = float(part.max(initial=0.0)), float(part.min(initial=0.0))
        peak = max(peak, abs(extremes[0]), abs(extremes[1]))
    return peak


def _misplaced(ref: Array, act: Array) -> str:
    """Say what is wrong with the places of non-finite values; empty if they are the same."""
    counts = dict.fromkeys(NOT_FINITE, 0)
    for chunk in chunks(ref.size):
        a, b = ref[chunk], act[chunk]
        with np.errstate(over="ignore", invalid="ignore"):
            if math.isfinite(float(a.sum(dtype=np.float64))) and math.isfinite(
                float(b.sum(dtype=np.float64))
            ):
                continue  # a sum of what is not finite is not
        for label, test in NOT_FINITE.items():
            counts[label] += int(np.count_nonzero(test(a) != test(b)))
    label = next((label for label, count in counts.items() if count), "")
    return f"{label} at other places than in the reference ({counts[label]} elements)" if label else ""


class _Worst:
    """The worst of two flat arrays, part by part; what is finite in one is so in the other.

    Sums of squares are of the values times one power of 2, so that none overflows or vanishes.
    """

    def __init__(self, floor: float, relative: float, peak: float) -> None:
        self._floor, self._relative = floor, relative
        self._scale = math.ldexp(1.0, max(-1000, min(-math.frexp(peak)[1], 1000)))
        self.excess = self.max_abs = self.max_rel = 0.0
        self.noise = self.power = self.other = self.product = 0.0
        self.place = 0
        self._most = -1.0

    def add(self, start: int, reference: Array, actual: Array) -> None:
        ref, act = reference.astype(np.float64), actual.astype(np.float64)
        finite = np.isfinite(ref)
        whole = bool(finite.all())
        if not whole:
            places = np.flatnonzero(finite)
            ref, act = ref[finite], act[finite]
        with np.errstate(over="ignore"):
            error = np.abs(ref - act)
        most = float(error.max(initial=0.0))
        if most > 0:
            self._differ(start, ref, error, None if whole else places)
        self.max_abs = max(self.max_abs, most)
        ref *= self._scale
        act *= self._scale
        self.power += _product(ref, ref)
        self.other += _product(act, act)
        self.product += _product(ref, act)
        if most > 0:
            ref -= act
            self.noise += _product(ref, ref)

    def _differ(self, start: int, ref: Array, error: Array, places: Array | None) -> None:
        magnitude = np.abs(ref)
        limit = self._relative * magnitude
        limit += self._floor
        with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
            ratio = error / np.maximum(limit, TINY)
            self.excess = max(
                self.excess,
                (
                    float(np.where(error == 0, 0.0, error / limit).max())
                    if self._floor == 0
                    else float(ratio.max())
                ),
            )
            self.max_rel = max(self.max_rel, float(np.where(magnitude > 0, error / magnitude, 0.0).max()))
        worst = int(np.argmax(ratio))
        if float(ratio[worst]) > self._most:
            self._most = float(ratio[worst])
            self.place = start + (worst if places is None else int(places[worst]))


def _product(a: Array, b: Array) -> float:
    """The inner product, in this thread: a BLAS would start others for it."""
    return float(np.einsum("i,i->", a, b))


def _compare_steps(
    name: str, case: int, reference: Array, actual: Array, tolerance: Tolerance
) -> OutputError:
    """Compare an output of a net that rounds: none of its elements may be many steps off."""
    if reference.dtype.kind == "f" and (problem := _misplaced(reference.reshape(-1), actual.reshape(-1))):
        return OutputError(name, case, problem=problem)
    off, allowed = np.abs(tolerance.off(name, reference, actual)), allowed_steps(tolerance.steps[name])
    a, b = (np.nan_to_num(array.astype(np.float64)).reshape(-1) for array in (reference, actual))
    noise, power = _product(a - b, a - b), _product(a, a)
    norm = math.sqrt(power) * math.sqrt(_product(b, b))
    excess = float(off.max(initial=0.0)) / allowed
    index = [int(i) for i in np.unravel_index(int(off.argmax()), off.shape)] if off.size else []
    return OutputError(
        name,
        case,
        max_abs=float(np.abs(a - b).max(initial=0.0)),
        cosine=min(1.0, _product(a, b) / norm) if norm > 0 else None,
        sqnr_db=10 * math.log10(power / noise) if noise > 0 and power > 0 else None,
        excess=excess,
        problem=f"is {off.max():.3g} steps off at {index}; {allowed:.3g} are allowed" if excess > 1 else "",
    )


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
    return OutputError(
        name,
        case,
        max_abs=gap,
        problem=f"{wrong} of {reference.size} elements differ; integers and booleans must be equal",
    )


def compare_outputs(
    case: int,
    reference: Mapping[str, Array],
    actual: Mapping[str, Array],
    tolerance: Tolerance,
    narrowed: Mapping[str, str] | None = None,
) -> list[OutputError]:
    """Compare two runs, output by output; a missing or surplus output is a problem of its own."""
    results = []
    for name, array in reference.items():
        if name in actual:
            results.append(
                compare_output(name, case, array, actual[name], tolerance, (narrowed or {}).get(name, ""))
            )
        else:
            results.append(OutputError(name, case, problem="the output is missing"))
    results += [
        OutputError(name, case, problem="an output the reference does not have")
        for name in actual
        if name not in reference
    ]
    return results
