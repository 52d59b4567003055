"""The part of a verification that is for targets: run the converted model there, and judge what came out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import msgspec

from mnnprep.attempt.results import TargetProof, unanswered
from mnnprep.comparison.half_precision import HalfJudgement, Standing, judge, wanted_db
from mnnprep.comparison.outputs import compare_run, confirmed, contradicted
from mnnprep.comparison.tolerance import Tolerance
from mnnprep.evidence import catalog
from mnnprep.evidence.check import Check, Figures, Status
from mnnprep.evidence.row import Row
from mnnprep.formats.backend import ArtifactFormat
from mnnprep.mnn.run import NARROWED_OUTPUTS
from mnnprep.mnn.settings import FLOAT16, FLOAT32
from mnnprep.model.half import HalfType
from mnnprep.model.messages import CaseFile, HalfJob, RunJob, RunResult
from mnnprep.model.target import Target
from mnnprep.targets.environment import Unavailable
from mnnprep.targets.run import TargetRun
from mnnprep.text import listed
from mnnprep.workers.failure import StepFailed, describe
from mnnprep.workers.pool import Workers

SHOWN = 2
HALF: HalfType = "float16"


@dataclass(frozen=True)
class Rounding:
    """How to learn what a type of half the width costs at best: an artifact's run, ``job``, with it."""

    workers: Workers
    kind: ArtifactFormat
    job: RunJob

    def run(self, cases: list[CaseFile], to: HalfType) -> RunResult | None:
        """The artifact on *cases* with its numbers rounded to *to*; None if it can't be had."""
        if self.kind.half is None:
            return None
        fields = msgspec.structs.asdict(self.job)
        directory = str(self.workers.directory("rounded"))
        job = HalfJob(**{**fields, "cases": cases, "directory": directory}, rounding=to)
        try:
            return self.workers.run(self.kind.half, job)
        except StepFailed:
            return None


def judged(run: TargetRun, tolerance: Tolerance, budget: float | None, rounding: Rounding) -> TargetProof:
    """Wait for *run*, and compare it with the references.

    In float32 the outputs keep *tolerance*. In half precision, or with coarser functions, they keep the SQNR
    *budget* in dB (None: DEFAULT_LOW_SQNR); if they don't, *rounding* says whether the type is at fault.
    """
    row = catalog.TARGET.of(str(run.target))
    subject = str(run.target)
    if run.running is None:
        return TargetProof(run.target, row.not_run(run.missing, subject=subject))
    cases = tuple(case.index for case in run.cases)
    try:
        ran = run.running.result().value
    except Unavailable as error:
        return TargetProof(run.target, row.not_run(str(error), subject=subject), None, cases)
    except StepFailed as failure:
        reason = f"MNN on this target {describe(failure)}"
        check = unanswered(row, failure, reason, unable=run.emulated and failure.error is None)
        return TargetProof(run.target, msgspec.structs.replace(check, subject=subject), None, cases)
    runs = [ran] if ran.again is None else [ran, ran.again]
    check = compared_there(row, run.cases, runs, ran.arithmetic, tolerance, budget, rounding)
    return TargetProof(run.target, msgspec.structs.replace(check, subject=subject), ran, cases)


def compared_there(
    row: Row,
    cases: list[CaseFile],
    runs: Sequence[RunResult],
    arithmetic: str,
    tolerance: Tolerance,
    budget: float | None,
    rounding: Rounding,
) -> Check:
    """The check of what MNN computed elsewhere, in *arithmetic*, in one or more *runs* of the same cases.

    Each run must be right, by the rules of :func:`judged`.
    """
    first, *others = runs
    if arithmetic == FLOAT32:
        check = compare_run(row, cases, first, tolerance, NARROWED_OUTPUTS)
        for again in others:
            check = confirmed(check, first, again, cases, tolerance, NARROWED_OUTPUTS)
        return check
    least = wanted_db(tolerance, budget)
    check = _in_half(row, cases, first, arithmetic, least, rounding)
    for again in others:
        if check.status is Status.PASSED and _sums(again) != _sums(first):
            second = _in_half(row, cases, again, arithmetic, least, rounding)
            check = check if second.status is Status.PASSED else contradicted(check, second)
    return check


def _sums(ran: RunResult) -> dict[str, str]:
    return {key: file.sha256 for key, file in ran.outputs.items()}


def _in_half(
    row: Row, cases: list[CaseFile], ran: RunResult, arithmetic: str, least: float, rounding: Rounding
) -> Check:
    """The check of a run at low precision; the artifact is rounded only if that is short of *least* dB."""
    found = judge(cases, ran, None, HALF, sqnr_db=least, narrowing=NARROWED_OUTPUTS)
    if found.standing is Standing.RIGHT:
        return row.passed(numbers=_figures(found), outputs=found.errors)
    rounded = rounding.run(cases, HALF) if arithmetic == FLOAT16 else None
    if rounded is not None:
        found = judge(cases, ran, rounded, HALF, sqnr_db=least, narrowing=NARROWED_OUTPUTS)
    at_fault = "" if rounded is None else f" (by {found.standing.value})"
    reason = f"{listed(found.reasons, SHOWN, '; ')}{at_fault}"
    return row.failed(reason, numbers=_figures(found), outputs=found.errors)


def _figures(found: HalfJudgement) -> Figures:
    figures: dict[str, float] = {}
    for output in found.outputs:
        if output.sqnr_db is not None:
            figures[f"sqnr_db:{output.output}"] = output.sqnr_db
        if output.expected_db is not None:
            figures[f"expected_db:{output.output}"] = output.expected_db
    return figures


def without_model(targets: Sequence[Target], host: Check | None) -> list[TargetProof]:
    """What is to be said of *targets* if the converted model is wrong on this *host* already, or is not."""
    why = (
        "there is no converted model"
        if host is None
        else "MNN on this machine must compute what the source computes first"
    )
    return [TargetProof(t, catalog.TARGET.of(str(t)).not_run(why, subject=str(t))) for t in targets]
