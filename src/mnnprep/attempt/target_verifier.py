"""The part of a verification that is for targets: run the converted model there, and judge what came out."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from mnnprep.attempt.results import TargetProof, unanswered
from mnnprep.comparison.outputs import compare_run
from mnnprep.comparison.tolerance import Tolerance
from mnnprep.evidence import catalog
from mnnprep.evidence.check import Check
from mnnprep.mnn.run import NARROWED_OUTPUTS
from mnnprep.mnn.settings import FLOAT32
from mnnprep.model.target import Target
from mnnprep.targets.run import TargetRun
from mnnprep.workers.failure import StepFailed, describe

LOW_SQNR = 30.0  # dB that half precision must keep, if no other budget is given


def judged(run: TargetRun, tolerance: Tolerance, budget: float | None) -> TargetProof:
    """Wait for *run*, and compare it with the references.

    In float32 the outputs keep *tolerance*, in half precision the SQNR *budget* (None: LOW_SQNR), in dB.
    """
    row = catalog.TARGET.of(str(run.target))
    subject = str(run.target)
    if run.running is None:
        return TargetProof(run.target, row.not_run(run.missing, subject=subject))
    cases = tuple(case.index for case in run.cases)
    try:
        ran = run.running.result().value
    except StepFailed as failure:
        reason = f"MNN on this target {describe(failure)}"
        check = unanswered(row, failure, reason)
        return TargetProof(run.target, msgspec.structs.replace(check, subject=subject), None, cases)
    if ran.arithmetic != FLOAT32:
        tolerance = msgspec.structs.replace(tolerance, sqnr_db=_least(tolerance.sqnr_db, budget))
    check = compare_run(row, run.cases, ran, tolerance, NARROWED_OUTPUTS)
    return TargetProof(run.target, msgspec.structs.replace(check, subject=subject), ran, cases)


def without_model(targets: Sequence[Target], host: Check | None) -> list[TargetProof]:
    """What is to be said of *targets* if the converted model is wrong on this *host* already, or is not."""
    why = (
        "there is no converted model"
        if host is None
        else "MNN on this machine must compute what the source computes first"
    )
    return [TargetProof(t, catalog.TARGET.of(str(t)).not_run(why, subject=str(t))) for t in targets]


def _least(asked: float | None, budget: float | None) -> float:
    """The SQNR for half precision, where the weights' own precision may ask for less."""
    least = LOW_SQNR if budget is None else budget
    return least if asked is None else min(asked, least)
