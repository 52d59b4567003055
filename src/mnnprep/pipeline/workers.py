"""The workers of one run: a host per group of modules to preload, started when first needed, and a scratch directory."""

from __future__ import annotations

import shutil
import tempfile
import threading
from collections.abc import Sequence
from concurrent.futures import Future
from pathlib import Path
from types import TracebackType
from typing import Any, TypeVar

import msgspec
import psutil

from mnnprep.core.request import Limits
from mnnprep.isolate.host import Host, InProcess, Reply, StepFailed
from mnnprep.isolate.launch import DIRTY_MEMORY
from mnnprep.mnn import worker
from mnnprep.mnn.frontends import Frontends, FrontendsJob

T = TypeVar("T")
FREE_SHARE = 0.75  # of the memory that is free at the start, where no limit was given


class Workers:
    """Use as a context manager; leaving it ends every worker and removes the scratch directory."""

    def __init__(self, limits: Limits) -> None:
        self.limits = limits
        self.memory = limits.memory or int(psutil.virtual_memory().available * FREE_SHARE)
        self.scratch = Path(tempfile.mkdtemp(prefix="mnnprep-"))
        self._hosts: dict[tuple[str, ...], Host | InProcess] = {}
        self._lock = threading.RLock()
        self._ended = False

    def __enter__(self) -> Workers:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.dismiss()
        for host in self._hosts.values():
            host.close()
        shutil.rmtree(self.scratch, ignore_errors=True)

    def dismiss(self) -> None:
        """No step will come any more: no worker starts, and those that run nothing end while something else is done."""
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
                self._hosts[preload] = Host(preload, scratch=self.scratch, environment=DIRTY_MEMORY if "MNN" in preload else None)
            return self._hosts[preload]

    def warm_in_turn(self, preloads: Sequence[tuple[str, ...]]) -> None:
        """Start the hosts with these *preloads* that are not there, each when the one before has imported: what has to be quick now has but one
        of them beside it."""
        with self._lock:
            cold = [preload for preload in preloads if preload not in self._hosts]
            if not cold or self._ended:
                return
            host = self.warm(cold[0])
        assert isinstance(host, Host)
        host.ready.add_done_callback(lambda _: self.warm_in_turn(cold[1:]))

    def renew(self, preload: tuple[str, ...]) -> None:
        """End the host with *preload* and start it anew."""
        self._hosts.pop(preload).close()
        self.warm(preload)

    def submit(self, preload: tuple[str, ...], step: str, job: msgspec.Struct, reply: type[T], *, here: bool = False) -> Future[Reply[T]]:
        return self.warm(preload).submit(step, job, reply, timeout=self.limits.timeout, memory=self.memory, here=here)

    def run(self, preload: tuple[str, ...], step: str, job: msgspec.Struct, reply: type[T]) -> T:
        value: Any = self.submit(preload, step, job, reply).result().value
        return value  # type: ignore[no-any-return]

    def sweep(self) -> None:
        """Remove what the steps that ended have left in the scratch; no step may be running."""
        for left in self.scratch.iterdir():
            shutil.rmtree(left, ignore_errors=True)

    def directory(self, name: str) -> Path:
        """A fresh, empty directory in the scratch."""
        return Path(tempfile.mkdtemp(prefix=f"{name}-", dir=self.scratch))


def listed_operators(workers: Workers, converter: str) -> list[str] | None:
    """The operators that the converter at hand (a path; empty: the MNN package's) lists for ONNX; None where it can't be asked."""
    try:
        return workers.run(worker.CONVERT_PRELOAD, worker.FRONTENDS, FrontendsJob(converter=converter), Frontends).names.get("ONNX")
    except StepFailed:
        return None
