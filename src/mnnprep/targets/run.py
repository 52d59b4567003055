"""Running a converted model on targets, on cases that are worth an emulator's time, and what came of it."""

from __future__ import annotations

import time
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace

import msgspec
import numpy as np

from mnnprep.comparison.noise import real
from mnnprep.mnn.run import RUN, MnnRunJob, MnnRunResult
from mnnprep.mnn.settings import Settings
from mnnprep.model.files import load_arrays
from mnnprep.model.messages import CaseFile
from mnnprep.model.ssh_host import host_of
from mnnprep.model.target import Target
from mnnprep.targets.environment import Unavailable, worker_of
from mnnprep.targets.ssh import NotRun, run_over_ssh
from mnnprep.workers.host import Reply
from mnnprep.workers.pool import Workers
from mnnprep.workers.step import Worker

_MODULE_ALONE = "over ssh a model runs by the Module API, in the engine that is there"
MOST_REAL = 2  # samples that are run on an emulated target


@dataclass(frozen=True)
class TargetRun:
    """A run that was started on a target, or why none could be.

    ``cases`` are those that it is given; what crashes where a CPU is ``emulated`` says nothing of the model.
    """

    target: Target
    cases: list[CaseFile]
    running: Future[Reply[MnnRunResult]] | None = None
    missing: str = ""
    emulated: bool = False


def workers_of(targets: Sequence[Target]) -> list[Worker]:
    """The workers of those *targets* that have one here, each once."""
    found: list[Worker] = []
    for target in targets:
        try:
            found.append(worker_of(target))
        except Unavailable:
            continue
    return list(dict.fromkeys(found))


def settings_of(target: Target) -> Settings:
    """The settings of MNN's runtime on *target*."""
    return Settings(precision=target.precision, memory=target.memory, threads=target.threads)


def start(workers: Workers, target: Target, job: MnnRunJob, *, every: bool = False) -> TargetRun:
    """Start *job* on *target*: on its cases that tell most where it is emulated, but for *every* one."""
    if target.remote and (target.api != "module" or target.engine):
        return TargetRun(target, [], missing=_MODULE_ALONE)
    if target.remote:
        return TargetRun(target, job.cases, _over_ssh(workers, target, job))
    try:
        worker = worker_of(target)
    except Unavailable as error:
        return TargetRun(target, [], missing=str(error))
    cases = job.cases if every or worker.interpreter is None else telling(job.cases)
    settings = settings_of(target)
    there = msgspec.structs.replace(job, cases=cases, settings=settings, session=target.api == "session")
    running = workers.submit(replace(RUN, worker=worker), there)
    return TargetRun(target, cases, running, emulated=worker.interpreter is not None)


def _over_ssh(workers: Workers, target: Target, job: MnnRunJob) -> Future[Reply[MnnRunResult]]:
    """Start *job* on the machine that ssh reaches; the future gives its run, or raises Unavailable."""
    settings = settings_of(target)

    def there() -> Reply[MnnRunResult]:
        started = time.monotonic()
        try:
            found = run_over_ssh(host_of(target.arch), job, settings, timeout=workers.limits.timeout)
        except NotRun as error:
            raise Unavailable(str(error)) from error
        shared = msgspec.structs.asdict(found.shared)
        ran = MnnRunResult(
            **shared,
            engine=found.engine,
            arithmetic=settings.arithmetic_elsewhere,
            hints=job.hints,
            again=found.fresh,
        )
        return Reply(ran, time.monotonic() - started, 0)

    pool = ThreadPoolExecutor(1)
    try:
        return pool.submit(there)
    finally:
        pool.shutdown(wait=False)


def telling(cases: list[CaseFile]) -> list[CaseFile]:
    """The cases that tell most in a few runs, in their order.

    They are the first real ones, the least and the largest if they have several sizes, and the one with the
    widest values.
    """
    chosen = [case for case in cases if real(case.origin)][:MOST_REAL]
    if cases:
        chosen.append(max(cases, key=_width))
    if len({tuple(case.dims.values()) for case in cases}) > 1:
        chosen += [min(cases, key=_size), max(cases, key=_size)]
    indexes = {case.index for case in chosen}
    return [case for case in cases if case.index in indexes]


def _size(case: CaseFile) -> int:
    return case.file.size


def _width(case: CaseFile) -> float:
    """The largest finite magnitude among a case's inputs."""
    arrays = load_arrays(case.file.path, "inputs/").values()
    floats = [a[np.isfinite(a)] for a in arrays if a.dtype.kind == "f"]
    return max((float(np.abs(a).max()) for a in floats if a.size), default=0.0)
