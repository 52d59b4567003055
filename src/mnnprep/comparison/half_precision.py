"""Whether a target that computes in half precision is right, and if not, whether the type or MNN is at fault.

An output is right if it reaches the SQNR wanted.  If it does not, the source's own graph with its numbers
rounded to the target's type (`HalfJob`) shows what the type costs at best: within PAR_DB of that the type is
at fault, below it MNN's way of computing with it.

Being at par is not required of an output that reaches the SQNR: MNN's convolutions sum up in half precision,
and lose 10 to 29 dB more than the type does, in nets that are right (docs/check.md).

Integers and booleans must be equal, as everywhere.  An element that differs counts as noise: the target is
at par with the type if it has no more of them than PAR_DB above the rounded run's.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from enum import Enum

import msgspec
import numpy as np

from mnnprep.comparison.tolerance import Array, Tolerance, chunks, compare_outputs
from mnnprep.evidence.check import OutputError
from mnnprep.model.files import Arrays, load_arrays
from mnnprep.model.half import LIMITS, HalfType
from mnnprep.model.messages import CaseFile, RunResult
from mnnprep.model.running import case_outputs
from mnnprep.safety.error_text import message

DEFAULT_LOW_SQNR = 30.0  # dB
PAR_DB = 6.0  # a factor of 2 in amplitude, of 4 in power
SHOWN = 2


class Standing(Enum):
    """What the outputs of a target say, the worst last."""

    RIGHT = "right"
    PRECISION = "the precision"  # below what is wanted, as the type alone makes it
    MNN = "MNN"  # below what is wanted, and below what the type costs


class HalfOutput(msgspec.Struct, frozen=True, kw_only=True):
    """One output over all cases.

    ``sqnr_db`` is the target's, ``expected_db`` the rounded run's: None where there is no noise, where
    numbers can't be compared, or for integers; ``expected_db`` is None without a rounded run, too.
    ``flips`` and ``expected_flips`` count the integers and booleans that differ.  ``reason`` is empty if the
    output is right.
    """

    output: str
    standing: Standing
    sqnr_db: float | None = None
    expected_db: float | None = None
    flips: int = 0
    expected_flips: int = 0
    reason: str = ""


class HalfJudgement(msgspec.Struct, frozen=True, kw_only=True):
    """The worst standing of any output, the outputs, and the error of each in each case."""

    standing: Standing
    outputs: list[HalfOutput]
    errors: list[OutputError]

    @property
    def reasons(self) -> list[str]:
        """Why it is not right, output by output."""
        return [o.reason for o in self.outputs if o.reason]


def wanted_db(tolerance: Tolerance, budget: float | None = None) -> float:
    """The SQNR that half precision must keep, in dB: *budget*, or DEFAULT_LOW_SQNR if none is given.

    It is no more than *tolerance* asks of the model as it is, whose weights may have been granted less.
    """
    least = DEFAULT_LOW_SQNR if budget is None else budget
    return least if tolerance.sqnr_db is None else min(least, tolerance.sqnr_db)


def ceiling_db(to: HalfType) -> float:
    """The SQNR of numbers that were rounded to *to* once, in dB.

    A rounded run counts for no more: one that happens to be exact costs MNN a rounding all the same.

    The error is uniform within half a unit in the last place (a variance of 2^-2p / 3 for a significand of p
    bits in [1, 2)); the numbers are spread evenly over the octave on a logarithmic scale (mean square
    1.5 / ln 2).
    """
    return 10 * math.log10(1.5 / math.log(2) * 3 * 4.0 ** LIMITS[to].bits)


def judge(
    cases: Sequence[CaseFile],
    ran: RunResult,
    rounded: RunResult | None,
    to: HalfType,
    *,
    sqnr_db: float = DEFAULT_LOW_SQNR,
    narrowing: Mapping[str, str] | None = None,
) -> HalfJudgement:
    """Judge the target's run *ran* of *cases* by their references and by the run *rounded* to the type *to*.

    Without a rounded run, *sqnr_db* alone decides, and a failure is the precision's as far as is known.
    ``narrowing`` maps a dtype to the one that the runtime is known to give in its place.
    """
    tolerance = Tolerance(sqnr_db=sqnr_db)
    outputs: dict[str, _Output] = {}
    errors: list[OutputError] = []
    for case in cases:
        key = str(case.index)
        reference = case_outputs(case.file.path)
        expected = _outputs_of(rounded, key)
        actual = _outputs_of(ran, key)
        told = message(ran.errors[key]) if key in ran.errors else "the output is missing"
        if actual is None:
            found = [OutputError(name, case.index, problem=told) for name in reference]
        else:
            allowed = {
                name: narrow
                for name, narrow in ran.narrowed.items()
                if name in reference and (narrowing or {}).get(reference[name].dtype.name) == narrow
            }
            found = compare_outputs(case.index, reference, actual, tolerance, allowed)
        for error in found:
            output = outputs.setdefault(error.output, _Output(error.output, rounded is not None))
            output.add(
                error,
                reference.get(error.output),
                (actual or {}).get(error.output),
                None if expected is None else expected.get(error.output),
            )
        errors += found
    judged = [output.judged(sqnr_db, ceiling_db(to)) for output in outputs.values()]
    order = list(Standing)
    worst = max((o.standing for o in judged), key=order.index, default=Standing.MNN)
    return HalfJudgement(standing=worst, outputs=judged, errors=errors)


def _outputs_of(ran: RunResult | None, key: str) -> Arrays | None:
    return load_arrays(ran.outputs[key].path) if ran is not None and key in ran.outputs else None


class _Noise:
    """The noise of one run in one output over all cases.

    ``broken``: the numbers could not be compared somewhere (another shape, other non-finite places).
    """

    def __init__(self) -> None:
        self.power = self.noise = 0.0
        self.flips = 0
        self.broken = False

    def add(self, reference: Array, actual: Array | None) -> None:
        """Add a case."""
        if actual is None or actual.shape != reference.shape:
            self.broken = True
        elif reference.dtype.kind != "f":
            self.flips += int(np.count_nonzero(reference != actual))
        else:
            self._add_floats(reference.reshape(-1), actual.reshape(-1))

    def _add_floats(self, reference: Array, actual: Array) -> None:
        for chunk in chunks(reference.size):
            a, b = reference[chunk].astype(np.float64), actual[chunk].astype(np.float64)
            finite = np.isfinite(a)
            if not np.array_equal(finite, np.isfinite(b)) or not np.array_equal(
                a[~finite], b[~finite], equal_nan=True
            ):
                self.broken = True
                return
            with np.errstate(over="ignore"):
                self.power += float(np.square(a[finite]).sum())
                self.noise += float(np.square(a[finite] - b[finite]).sum())

    @property
    def db(self) -> float:
        """The SQNR: infinite without noise, minus infinity where numbers could not be compared."""
        if self.broken or not math.isfinite(self.noise) or not math.isfinite(self.power):
            return -math.inf
        if self.noise == 0:
            return math.inf
        return 10 * math.log10(self.power / self.noise) if self.power > 0 else -math.inf


class _Output:
    """One output as the cases come in."""

    def __init__(self, name: str, has_expected: bool) -> None:
        self._name = name
        self._has_expected = has_expected
        self._target, self._expected = _Noise(), _Noise()
        self._floats = True
        self._broken = ""  # what no SQNR says: another shape or dtype, NaN, a missing output
        self._low = ""  # a single case far below

    def add(
        self, error: OutputError, reference: Array | None, actual: Array | None, expected: Array | None
    ) -> None:
        """Add a case: its *error* beside the three arrays, each None where it is missing."""
        numeric = error.max_abs is not None
        if error.problem and not numeric:
            self._broken = self._broken or f"{self._name} in case {error.case}: {error.problem}"
        elif error.problem:
            self._low = self._low or f"{self._name} in case {error.case}: {error.problem}"
        if reference is None:
            return
        self._floats = reference.dtype.kind == "f"
        self._target.add(reference, actual)
        if self._has_expected:
            self._expected.add(reference, expected)

    def judged(self, wanted: float, ceiling: float) -> HalfOutput:
        """The output's standing: *wanted* dB are required, and the type has no more than *ceiling*."""
        if not self._floats:
            return self._judged_integers()
        found, expected = self._target.db, min(self._expected.db, ceiling)
        short = not found >= wanted
        standing, reason = Standing.RIGHT, ""
        if self._broken:
            standing = self._blamed(at_par=self._expected.broken)
            reason = self._broken
        elif short or self._low:
            standing = self._blamed(at_par=found >= expected - PAR_DB)
            reason = f"{self._name} has {_db(found)}, but {wanted:g} dB are required" if short else self._low
            if self._has_expected:
                reason += f"; rounding to the type alone leaves {_db(expected)}"
        return HalfOutput(
            output=self._name,
            standing=standing,
            sqnr_db=_finite(found),
            expected_db=_finite(self._expected.db) if self._has_expected else None,
            reason=reason,
        )

    def _blamed(self, *, at_par: bool) -> Standing:
        """Who is at fault; without a rounded run the type, as far as is known."""
        return Standing.PRECISION if at_par or not self._has_expected else Standing.MNN

    def _judged_integers(self) -> HalfOutput:
        flips, expected = self._target.flips, self._expected.flips
        standing, reason = Standing.RIGHT, ""
        if self._broken:
            standing = self._blamed(at_par=self._expected.broken)
            reason = self._broken
        elif flips:
            most = expected * 10 ** (PAR_DB / 10)
            standing = self._blamed(at_par=flips <= most or self._expected.broken)
            reason = f"{self._name} differs in {flips} elements"
            if self._has_expected:
                reason += f"; rounding to the type alone changes {expected}"
        return HalfOutput(
            output=self._name,
            standing=standing,
            flips=flips,
            expected_flips=expected,
            reason=reason,
        )


def _db(value: float) -> str:
    return f"{value:.1f} dB" if math.isfinite(value) else "no numbers that can be compared"


def _finite(value: float) -> float | None:
    return round(value, 2) if math.isfinite(value) else None
