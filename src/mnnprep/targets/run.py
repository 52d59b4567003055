"""Running a converted model on targets, on cases that are worth an emulator's time, and what came of it."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import Future
from dataclasses import dataclass, replace

import msgspec
import numpy as np

from mnnprep.comparison.noise import real
from mnnprep.mnn.run import RUN, MnnRunJob, MnnRunResult
from mnnprep.mnn.settings import Settings
from mnnprep.model.files import load_arrays
from mnnprep.model.messages import CaseFile
from mnnprep.model.target import Target
from mnnprep.targets.environment import Unavailable, worker_of
from mnnprep.workers.host import Reply
from mnnprep.workers.pool import Workers
from mnnprep.workers.step import Worker

MOST_REAL = 2  # samples that are run on an emulated target


@dataclass(frozen=True)
class TargetRun:
    """A run that was started on a target, or why none could be.

    ``cases`` are those that it is given.
    """

    target: Target
    cases: list[CaseFile]
    running: Future[Reply[MnnRunResult]] | None = None
    missing: str = ""


def workers_of(targets: Sequence[Target]) -> list[Worker]:
    """The workers of those *targets* that have one here, each once."""
    found: list[Worker] = []
    for target in targets:
        try:
            found.append(worker_of(target))
        except Unavailable:
            continue
    return list(dict.fromkeys(found))


def start(workers: Workers, target: Target, job: MnnRunJob) -> TargetRun:
    """Start *job* on *target*, on all of its cases or, where it is emulated, on those that tell most."""
    try:
        worker = worker_of(target)
    except Unavailable as error:
        return TargetRun(target, [], missing=str(error))
    cases = job.cases if worker.interpreter is None else telling(job.cases)
    settings = Settings(precision=target.precision, memory=target.memory, threads=target.threads)
    there = msgspec.structs.replace(job, cases=cases, settings=settings, session=target.api == "session")
    return TargetRun(target, cases, workers.submit(replace(RUN, worker=worker), there))


def telling(cases: list[CaseFile]) -> list[CaseFile]:
    """The cases that tell most in a few runs, in their order.

    They are the first real ones, the least and the largest, and the one with the widest values.
    """
    chosen = [case for case in cases if real(case.origin)][:MOST_REAL]
    if cases:
        chosen += [min(cases, key=_size), max(cases, key=_size), max(cases, key=_width)]
    indexes = {case.index for case in chosen}
    return [case for case in cases if case.index in indexes]


def _size(case: CaseFile) -> int:
    return case.file.size


def _width(case: CaseFile) -> float:
    """The largest finite magnitude among a case's inputs."""
    arrays = load_arrays(case.file.path, "inputs/").values()
    floats = [a[np.isfinite(a)] for a in arrays if a.dtype.kind == "f"]
    return max((float(np.abs(a).max()) for a in floats if a.size), default=0.0)
