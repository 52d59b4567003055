"""From runs to checks: the comparisons of a run with the references, and with another run."""

from __future__ import annotations

import math
from collections.abc import Mapping

import msgspec
import numpy as np

from mnnprep.comparison.noise import LEAST_CASES, lost_in_noise, real
from mnnprep.comparison.steps import StepTally
from mnnprep.comparison.tolerance import Tolerance, compare_outputs
from mnnprep.evidence import catalog
from mnnprep.evidence.check import Check, Figure, OutputError, Status
from mnnprep.evidence.row import Row
from mnnprep.model.files import Arrays, load_arrays
from mnnprep.model.messages import CaseFile, RunResult, Survey
from mnnprep.model.running import case_outputs
from mnnprep.safety.error_text import message
from mnnprep.text import listed

SHOWN = 2
SILENT = "no reason was given"


def compare_run(
    row: Row,
    cases: list[CaseFile],
    ran: RunResult,
    tolerance: Tolerance,
    narrowing: Mapping[str, str],
    *,
    references: RunResult | None = None,
) -> Check:
    """The check that compares every output of one run, in every case, with the stored references.

    *references* are those of another run, to be taken in place of the stored ones.

    ``narrowing`` maps a dtype to the one that the runtime is known to give in its place; what the run
    says it narrowed counts only if it is one of those.

    A synthesized case that is lost in the source's noise is set aside: its numbers say nothing, and are not
    among the check's outputs. Where too few others are left, or a real case is lost, an error that may be
    noise can't be told: the check is then not run.
    """
    aside = set_aside(cases, tolerance)
    alone = len(cases) - len(aside) < min(LEAST_CASES, len(cases))
    tally = _Tally(tolerance)
    for case in cases:
        key = str(case.index)
        if key in ran.errors or key not in ran.outputs:
            tally.add_missing(case, ran.errors.get(key))
            continue
        reference = (
            load_arrays(references.outputs[key].path)
            if references is not None
            else case_outputs(case.file.path)
        )
        allowed = {
            n: d
            for n, d in ran.narrowed.items()
            if n in reference and narrowing.get(reference[n].dtype.name) == d
        }
        actual = load_arrays(ran.outputs[key].path)
        tally.add(case, reference, actual, allowed, aside=case.index in aside and not alone)
    numbers = tally.numbers(aside, ran.narrowed)
    if tally.problems:
        return row.failed(listed(tally.problems, SHOWN, "; "), numbers=numbers, outputs=tally.errors)
    if not tally.errors:
        return row.not_run("there was no output to compare")
    if tally.unclear or (aside and alone):
        words = tally.unclear or list(aside.values())
        reason = (
            "the source's own noise is as large as the error, or leaves too few cases:"
            f" {'; '.join(words[:SHOWN])}"
        )
        return row.not_run(reason, numbers=numbers, outputs=tally.errors)
    return row.passed(numbers=numbers, outputs=tally.errors)


class _Tally:
    """What the comparison of a run gave so far.

    ``problems`` fail it, ``unclear`` are outputs whose error may be noise.
    """

    def __init__(self, tolerance: Tolerance) -> None:
        self.errors: list[OutputError] = []
        self.problems: list[str] = []
        self.unclear: list[str] = []
        self._tolerance = tolerance
        self._powers: dict[str, tuple[float, float]] = {}
        self._steps = {name: StepTally(step) for name, step in tolerance.steps.items()}

    def add_missing(self, case: CaseFile, error: str | None) -> None:
        """Add a case without outputs: the run's *error* there, None where it says nothing of the case."""
        where = f"case {case.index} ({_dims(case)})"
        if error is None:
            self.errors.append(OutputError("", case.index, problem="no outputs"))
            self.problems.append(f"{where} has no outputs")
        else:
            self.errors.append(OutputError("", case.index, problem=error or SILENT))
            self.problems.append(f"{where} did not run: {message(error) or SILENT}")

    def add(
        self, case: CaseFile, reference: Arrays, actual: Arrays, allowed: Mapping[str, str], *, aside: bool
    ) -> None:
        """Add a case that ran; of one set *aside* nothing but what is no matter of numbers."""
        tolerance, index = self._tolerance, case.index
        compared = compare_outputs(index, reference, actual, tolerance, allowed)
        noise = lost_in_noise(tolerance, index, reference) or _zeros_in_noise(tolerance, index, reference)
        if aside:
            compared = [e for e in compared if e.problem and e.max_abs is None]
        elif noise:
            again = compare_outputs(index, reference, actual, tolerance.beyond_noise(), allowed)
            compared, within = _without_noise(compared, again, reference)
            self.unclear += [f"{name} in case {index} ({_dims(case)}): {noise}" for name in within]
        self.errors += compared
        for name in self._steps.keys() & reference.keys() & actual.keys():
            if reference[name].shape == actual[name].shape and not aside:
                self._steps[name].add(reference[name], tolerance.off(name, reference[name], actual[name]))
        if not noise:
            _add_power(self._powers, reference, compared)
        self.problems += [
            f"{e.output} in case {e.case} ({_dims(case)}): {e.problem}"
            for e in _worst_first(compared)
            if e.problem
        ]

    def numbers(self, aside: Mapping[int, str], narrowed: Mapping[str, str]) -> dict[str, Figure]:
        """The figures of the check; an SQNR over all cases that is short of the wanted one is a problem."""
        numbers = _worst(self.errors)
        if aside:
            numbers["set_aside"] = list(aside.values())
        for name, tally in self._steps.items():
            numbers |= {f"{figure}:{name}": round(v, 5) for figure, v in tally.figures().items()}
            self.problems += [f"{name}: {words}" for words in tally.problems()]
        if self._tolerance.sqnr_db is not None:
            powers = {n: p for n, p in self._powers.items() if n not in self._steps}
            self.problems += _short_of(self._tolerance.sqnr_db, _sqnr(powers), numbers)
        if narrowed:
            numbers["narrowed"] = [f"{n}: {d}" for n, d in sorted(narrowed.items())]
        return numbers


def _short_of(wanted: float, found: dict[str, float], numbers: dict[str, Figure]) -> list[str]:
    """The outputs with less than the *wanted* SQNR over all cases, in dB.

    What each output has goes into *numbers*.
    """
    numbers |= {
        f"sqnr_db:{name}": round(decibels, 2) for name, decibels in found.items() if math.isfinite(decibels)
    }
    return [  # NaN, where the powers overflow, is no proof either
        f"{name} has {decibels:.1f} dB over all cases, but {wanted:g} dB are required"
        for name, decibels in found.items()
        if not decibels >= wanted
    ]


def set_aside(cases: list[CaseFile], tolerance: Tolerance) -> dict[int, str]:
    """The synthesized ones of *cases* that are lost in the source's noise, by their index.

    Each is a text that names it.
    """
    found = {}
    for case in cases:
        noisy = any(tolerance.noise_of(name, case.index) for name in tolerance.noise)
        if (
            noisy
            and not real(case.origin)
            and (words := lost_in_noise(tolerance, case.index, case_outputs(case.file.path)))
        ):
            found[case.index] = f"case {case.index} ({case.origin}): {words}"
    return found


def _without_noise(
    errors: list[OutputError], beyond: list[OutputError], reference: Arrays
) -> tuple[list[OutputError], list[str]]:
    """*errors* with those problems alone that no noise explains, and the outputs of the others.

    In *beyond* all is allowed that may be noise: no noise explains a problem that is there too. Where
    integers or booleans differ, noise may have made a choice otherwise.
    """

    def chosen(error: OutputError) -> bool:
        return (
            error.max_abs is not None
            and error.output in reference
            and reference[error.output].dtype.kind != "f"
        )

    real_ones = {e.output for e in beyond if e.problem and not chosen(e)}
    within = [e.output for e in errors if e.problem and e.output not in real_ones]
    return [msgspec.structs.replace(e, problem="") if e.output in within else e for e in errors], within


def _zeros_in_noise(tolerance: Tolerance, case: int, reference: Arrays) -> str:
    """The outputs that are all zeros, and are moved from there by the source's noise."""
    zeros = [
        n
        for n, a in reference.items()
        if a.dtype.kind == "f"
        and n not in tolerance.steps
        and tolerance.noise_of(n, case) > 0
        and not np.any(a)
    ]
    return ", ".join(f"noise alone moves the zeros of {name}" for name in zeros)


def compared(
    survey: Survey, row: Row, ran: RunResult, narrowing: Mapping[str, str], tolerance: Tolerance
) -> Check:
    """:func:`compare_run` with the cases of *survey*.

    It is not run if the source gives other numbers each time.
    """
    if any(c.check == catalog.DETERMINISM.name and c.status is Status.FAILED for c in survey.checks):
        return row.not_run(
            "the source gives different numbers each time, so there is nothing to compare with"
        )
    return compare_run(row, survey.cases, ran, tolerance, narrowing)


def _add_power(
    powers: dict[str, tuple[float, float]], reference: Arrays, compared: list[OutputError]
) -> None:
    """Add a case's signal and noise power to *powers*, by output (the noise follows from the case's SQNR)."""
    for error in compared:
        if (
            error.output in reference
            and reference[error.output].dtype.kind == "f"
            and not np.isnan(error.max_abs or 0.0)
        ):
            values = reference[error.output].astype(np.float64)
            with np.errstate(over="ignore"):  # of a double near its largest there is no power, and no SQNR
                signal = float(np.square(values[np.isfinite(values)]).sum())
            noise = signal / 10 ** (error.sqnr_db / 10) if error.sqnr_db is not None else 0.0
            before = powers.get(error.output, (0.0, 0.0))
            powers[error.output] = (before[0] + signal, before[1] + noise)


def _sqnr(powers: dict[str, tuple[float, float]]) -> dict[str, float]:
    """The SQNR over all cases of every output that has noise, in dB."""
    return {
        n: 10 * math.log10(signal / noise)
        for n, (signal, noise) in powers.items()
        if 0 < signal < math.inf and noise > 0
    }


def _worst_first(errors: list[OutputError]) -> list[OutputError]:
    return sorted(errors, key=lambda e: -(e.excess or 0.0))


def _dims(case: CaseFile) -> str:
    return ", ".join(f"{n}={s}" for n, s in case.dims.items()) or case.origin


def _worst(errors: list[OutputError]) -> dict[str, Figure]:
    numbers: dict[str, Figure] = {
        "cases": len({e.case for e in errors}),
        "outputs": len({e.output for e in errors if e.output}),
    }
    for name, pick in (
        ("max_abs", max),
        ("max_rel", max),
        ("excess", max),
        ("cosine", min),
        ("sqnr_db", min),
    ):
        values = [v for e in errors if (v := getattr(e, name)) is not None]
        if values:
            numbers[name] = pick(values)
    return numbers


def confirmed(
    check: Check,
    first: RunResult,
    second: RunResult,
    cases: list[CaseFile],
    tolerance: Tolerance,
    narrowing: Mapping[str, str],
) -> Check:
    """*check*, failed if a second run of *cases* leaves the tolerance that the first kept.

    That tells of uninitialised memory, or a bad resize. Two runs may differ by what two choices of an
    algorithm round; each must be right.
    """
    if check.status is not Status.PASSED:
        return check
    others = [
        c
        for c in cases
        if first.outputs.get(key := str(c.index))
        and (key not in second.outputs or second.outputs[key].sha256 != first.outputs[key].sha256)
    ]
    again = compare_run(catalog.row(check.check), others, second, tolerance, narrowing) if others else check
    return check if again.status is not Status.FAILED else contradicted(check, again)


def contradicted(check: Check, again: Check) -> Check:
    """*check*, failed because that of a second run, *again*, is."""
    return msgspec.structs.replace(
        check,
        status=Status.FAILED,
        reason=f"a second run, in another process, is wrong, but the first was right: {again.reason}",
        outputs=[*check.outputs, *(e for e in again.outputs if e.problem)],
    )


def repeated(
    check: Check,
    first: RunResult,
    second: RunResult,
    tolerance: Tolerance,
    *,
    cases: list[CaseFile] | None = None,
    between: str = "two runs",
) -> Check:
    """*check*, failed if the second run gave other numbers than the first.

    That tells of uninitialised memory, or a bad resize.

    *cases* are those the second run was asked for (all, if not given).
    """
    if check.status is not Status.PASSED:
        return check
    asked = (
        first.outputs.keys() & {str(c.index) for c in cases} if cases is not None else first.outputs.keys()
    )
    for key, ref in first.outputs.items():
        if key not in asked:
            continue
        if key not in second.outputs:
            reason = message(second.errors.get(key, "no outputs")) or SILENT
            return msgspec.structs.replace(
                check,
                status=Status.FAILED,
                reason=f"the second run of case {key} failed, but the first did not: {reason}",
                outputs=[*check.outputs, OutputError("", int(key), problem=reason)],
            )
        if second.outputs[key].sha256 == ref.sha256:
            continue
        compared = compare_outputs(
            int(key), load_arrays(ref.path), load_arrays(second.outputs[key].path), tolerance
        )
        bad = next((e for e in compared if e.problem), None)
        if bad is not None:
            return msgspec.structs.replace(
                check,
                status=Status.FAILED,
                reason=f"{between} of case {key} gave different numbers, so one of them is wrong:"
                f" {bad.output} {bad.problem}",
                outputs=[*check.outputs, bad],
            )
    return check


def odd_one_out(
    third_opinion: list[CaseFile], mnn: RunResult, survey_checks: list[Check], tolerance: Tolerance
) -> Check:
    """Say who stands alone if MNN and the reference disagree, by a third runtime's outputs; never a vote.

    The verdict does not depend on it: where the reference stands alone, the check says that it is itself
    disputed.
    """
    third = next((c for c in survey_checks if c.check == catalog.THIRD_OPINION.name), None)
    with_reference = third is not None and third.status is Status.PASSED
    with_mnn = compare_run(catalog.STANDING, third_opinion, mnn, tolerance, {}).status is Status.PASSED
    if with_reference and not with_mnn:
        return catalog.STANDING.passed(
            subject="MNN",
            reason="MNN stands alone: the third opinion agrees with the reference",
        )
    if with_mnn and not with_reference:
        reason = (
            "the reference stands alone: the third opinion agrees with MNN, so the reference itself is"
            " disputed"
        )
        return catalog.STANDING.failed(reason, subject="reference")
    reason = (
        "the reference, MNN and the third opinion all differ"
        if not with_mnn
        else "the third opinion agrees with both within its tolerance"
    )
    return catalog.STANDING.failed(reason, subject="each")
