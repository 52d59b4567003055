"""What is known against precision ``low`` without a run there: operators that MNN computes wrong at it."""

from __future__ import annotations

from concurrent.futures import Future

from mnnprep.attempt.results import Artifact, KnownAtLow
from mnnprep.repair.steps import KNOWN_WRONG, Findings, KnownJob
from mnnprep.repair.table import applicable, wrong_at_low
from mnnprep.workers.failure import StepFailed, describe
from mnnprep.workers.host import Reply
from mnnprep.workers.pool import Workers


def start_knowing(workers: Workers, artifact: Artifact) -> Future[Reply[Findings]] | None:
    """Start to look for such places; None if *artifact* has no operator that could be one."""
    if not applicable(wrong_at_low(), artifact.operators):
        return None
    return workers.submit(KNOWN_WRONG, KnownJob(model=artifact.model))


def known(knowing: Future[Reply[Findings]] | None) -> KnownAtLow:
    """What :func:`start_knowing` found."""
    if knowing is None:
        return KnownAtLow()
    try:
        return KnownAtLow(tuple(knowing.result().value.known_wrong_at_low))
    except StepFailed as failure:
        return KnownAtLow(unknown=describe(failure))
