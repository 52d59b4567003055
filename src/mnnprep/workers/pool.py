"""The workers of one run, each started when it is first needed, and their scratch directory."""

from __future__ import annotations

import contextlib
import shutil
import tempfile
import threading
from collections.abc import Mapping, Sequence
from concurrent.futures import Future
from pathlib import Path
from types import TracebackType
from typing import Any

from mnnprep.errors import SystemFault
from mnnprep.model.request import Limits
from mnnprep.safety.leftovers import Scratch
from mnnprep.workers.failure import StepFailed
from mnnprep.workers.host import Host, InProcess, Reply, memory_limit
from mnnprep.workers.step import J, R, Step, Worker


class Workers:
    """Use as a context manager; leaving it ends every worker and removes the scratch directory.

    Every step may read what is below ``reads``, beside what its own job names. Steps of a worker in
    ``replaced`` run in the worker that it names there.
    """

    def __init__(
        self, limits: Limits, reads: Sequence[str] = (), replaced: Mapping[Worker, Worker] | None = None
    ) -> None:
        self.limits = limits
        self.reads = reads
        self._replaced = dict(replaced or {})
        self._free = memory_limit(0)  # at the start
        self._scratch = Scratch()
        self.scratch = self._scratch.path
        self._hosts: dict[Worker, Host | InProcess] = {}
        self._steps: list[Future[Any]] = []
        self._loaded: set[Worker] = set()
        self._lock = threading.RLock()
        self._ended = False

    def __enter__(self) -> Workers:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.shutdown()
        for host in self._hosts.values():
            host.close()
        self._scratch.close()

    def shutdown(self) -> None:
        """End the workers: no step will come any more.

        No worker starts, and those that run nothing end while something else is done.
        """
        with self._lock:
            self._ended = True
        for host in self._hosts.values():
            host.shutdown()

    def in_parent(self, worker: Worker) -> None:
        """Run the steps of *worker* in this process: a live object can't leave it."""
        self._hosts[worker] = InProcess(scratch=self.scratch)

    def warm(self, worker: Worker) -> Host | InProcess:
        """The host of *worker*; started if it is not there yet."""
        worker = self._replaced.get(worker, worker)
        with self._lock:
            if worker not in self._hosts:
                self._hosts[worker] = Host(worker, scratch=self.scratch, reads=self.reads)
            return self._hosts[worker]

    def warm_in_turn(self, workers: Sequence[Worker]) -> None:
        """Start the *workers* that are not there, each when the one before has imported.

        So a worker that is needed at once has only one of them beside it.
        """
        with self._lock:
            cold = [w for w in workers if self._replaced.get(w, w) not in self._hosts]
            if not cold or self._ended:
                return
            host = self.warm(cold[0])
        assert isinstance(host, Host)
        host.ready.add_done_callback(lambda _: self._warm_next(cold[1:]))

    def _warm_next(self, workers: Sequence[Worker]) -> None:
        with contextlib.suppress(OSError):  # no process to be had: whoever needs the worker is told
            self.warm_in_turn(workers)

    def renew(self, worker: Worker) -> None:
        """End the process of *worker* and start it anew."""
        self._hosts.pop(self._replaced.get(worker, worker)).close()
        self.warm(worker)

    def submit(self, step: Step[J, R], job: J, *, in_worker: bool = False) -> Future[Reply[R]]:
        """Start *step* on *job* in its worker, within the run's limits.

        With *in_worker* it runs in the worker itself, so that later steps find what it loaded.
        """
        if in_worker:  # a worker that has loaded one source is confined to it
            if step.worker in self._loaded:
                self.renew(step.worker)
            self._loaded.add(step.worker)
        memory = self.limits.memory or self._free
        future = self.warm(step.worker).submit(
            step, job, timeout=self.limits.timeout, memory=memory, in_worker=in_worker
        )
        self._steps.append(future)
        return future

    def run(self, step: Step[J, R], job: J) -> R:
        """:meth:`submit`, and wait for the value.

        Raises:
            StepFailed: the step failed.
        """
        return self.submit(step, job).result().value

    def require_sound(self) -> None:
        """Raise SystemFault if a step ended in one.

        A conclusion drawn without it says nothing of the model.
        """
        for step in self._steps:
            failure = step.exception() if step.done() else None
            if isinstance(failure, StepFailed) and isinstance(failure.error, SystemFault):
                raise failure.error from failure

    def sweep(self) -> None:
        """Forget the steps that ended, and remove what they have left in the scratch.

        No step may be running.
        """
        self._steps.clear()
        for left in self.scratch.iterdir():
            shutil.rmtree(left, ignore_errors=True)

    def directory(self, name: str) -> Path:
        """A fresh, empty directory in the scratch."""
        return Path(tempfile.mkdtemp(prefix=f"{name}-", dir=self.scratch))
