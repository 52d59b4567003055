"""The workers of one run: a host per group of modules to preload, started when first needed, and a scratch
directory.
"""

from __future__ import annotations

import contextlib
import shutil
import tempfile
import threading
from collections.abc import Sequence
from concurrent.futures import Future
from pathlib import Path
from types import TracebackType
from typing import Any, TypeVar

import msgspec

from mnnprep.core.leftovers import Scratch
from mnnprep.core.request import Limits
from mnnprep.errors import SystemFault
from mnnprep.isolate.host import Host, InProcess, Reply, StepFailed, memory_limit
from mnnprep.isolate.launch import DIRTY_MEMORY
from mnnprep.mnn import worker
from mnnprep.mnn.frontends import Frontends, FrontendsJob

T = TypeVar("T")


class Workers:
    """Use as a context manager; leaving it ends every worker and removes the scratch directory.

    Every step may read what is below ``reads``, beside what its own job names.
    """

    def __init__(self, limits: Limits, reads: Sequence[str] = ()) -> None:
        self.limits = limits
        self.reads = reads
        self._free = memory_limit(0)  # at the start
        self._scratch = Scratch()
        self.scratch = self._scratch.path
        self._hosts: dict[tuple[str, ...], Host | InProcess] = {}
        self._steps: list[Future[Any]] = []
        self._loaded: set[tuple[str, ...]] = set()
        self._lock = threading.RLock()
        self._ended = False

    def __enter__(self) -> Workers:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.dismiss()
        for host in self._hosts.values():
            host.close()
        self._scratch.close()

    def dismiss(self) -> None:
        """No step will come any more: no worker starts, and those that run nothing end while something else
        is done.
        """
        with self._lock:
            self._ended = True
        for host in self._hosts.values():
            host.dismiss()

    def keep_here(self, preload: tuple[str, ...]) -> None:
        """Run the steps of the host with *preload* in this process: a live object can't leave it."""
        self._hosts[preload] = InProcess(scratch=self.scratch)

    def warm(self, preload: tuple[str, ...]) -> Host | InProcess:
        """The host with *preload* imported; started if it is not there yet."""
        with self._lock:
            if preload not in self._hosts:
                dirty = DIRTY_MEMORY if "MNN" in preload else None
                self._hosts[preload] = Host(
                    preload, scratch=self.scratch, environment=dirty, reads=self.reads
                )
            return self._hosts[preload]

    def warm_in_turn(self, preloads: Sequence[tuple[str, ...]]) -> None:
        """Start the hosts with these *preloads* that are not there, each when the one before has imported:
        what has to be quick now has but one of them beside it.
        """
        with self._lock:
            cold = [preload for preload in preloads if preload not in self._hosts]
            if not cold or self._ended:
                return
            host = self.warm(cold[0])
        assert isinstance(host, Host)
        host.ready.add_done_callback(lambda _: self._warm_next(cold[1:]))

    def _warm_next(self, preloads: Sequence[tuple[str, ...]]) -> None:
        with contextlib.suppress(OSError):  # no process to be had: whoever needs the worker is told
            self.warm_in_turn(preloads)

    def renew(self, preload: tuple[str, ...]) -> None:
        """End the host with *preload* and start it anew."""
        self._hosts.pop(preload).close()
        self.warm(preload)

    def submit(
        self, preload: tuple[str, ...], step: str, job: msgspec.Struct, reply: type[T], *, here: bool = False
    ) -> Future[Reply[T]]:
        if here:  # a worker that has loaded one source is confined to it
            if preload in self._loaded:
                self.renew(preload)
            self._loaded.add(preload)
        future = self.warm(preload).submit(
            step, job, reply, timeout=self.limits.timeout, memory=self.limits.memory or self._free, here=here
        )
        self._steps.append(future)
        return future

    def run(self, preload: tuple[str, ...], step: str, job: msgspec.Struct, reply: type[T]) -> T:
        value: Any = self.submit(preload, step, job, reply).result().value
        return value  # type: ignore[no-any-return]

    def require_sound(self) -> None:
        """Raises SystemFault where a step ended in one: what was concluded without it says nothing of the
        model.
        """
        for step in self._steps:
            failure = step.exception() if step.done() else None
            if isinstance(failure, StepFailed) and isinstance(failure.error, SystemFault):
                raise failure.error from failure

    def sweep(self) -> None:
        """Forget the steps that ended, and remove what they have left in the scratch; no step may be
        running.
        """
        self._steps.clear()
        for left in self.scratch.iterdir():
            shutil.rmtree(left, ignore_errors=True)

    def directory(self, name: str) -> Path:
        """A fresh, empty directory in the scratch."""
        return Path(tempfile.mkdtemp(prefix=f"{name}-", dir=self.scratch))


def listed_operators(workers: Workers, converter: str) -> list[str] | None:
    """The operators that the converter at hand (a path; empty: the MNN package's) lists for ONNX; None where
    it can't be asked.
    """
    try:
        return workers.run(
            worker.CONVERT_PRELOAD, worker.FRONTENDS, FrontendsJob(converter=converter), Frontends
        ).names.get("ONNX")
    except StepFailed:
        return None
