"""The parent side of the process boundary.

A step has succeeded when its process exited with 0, its reply is there and valid, and the files it
names exist with the sizes and hashes it gave.  What a tool prints decides nothing.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import signal
import subprocess
import tempfile
import threading
import time
import traceback
from collections.abc import Sequence
from concurrent.futures import Future
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Generic

import msgspec
import psutil

from mnnprep.errors import InternalError, MnnprepError, from_dict
from mnnprep.model.files import FileRef, sha256
from mnnprep.safety.error_text import said
from mnnprep.safety.faults import exhausted, fault, fault_in, quoted
from mnnprep.workers.confine import Confinement, crashed
from mnnprep.workers.failure import StepFailed, signal_name, tail
from mnnprep.workers.launch import launch
from mnnprep.workers.reach import confinement_of
from mnnprep.workers.server import READY, decode, encode, resolve
from mnnprep.workers.step import J, R, Step, Worker

WATCH_SECONDS = 0.05
FREE_SHARE = 0.75  # of the memory that is free now: the limit of a step that was given none
# Bytes. A larger file is not hashed again here; a bundle's files are hashed when the bundle is completed.
HASHED = 1 << 24


@dataclass(frozen=True)
class Reply(Generic[R]):
    """A step's value, with what it cost: wall seconds and peak resident bytes."""

    value: R
    seconds: float
    peak: int


@dataclass
class _Pending:
    step: Step[Any, Any]
    directory: Path
    timeout: float
    memory: int
    limit: str = ""
    confinement: Confinement | None = None
    future: Future[Any] = field(default_factory=Future)


class Host:
    """A process of the kind *worker*, forking a child for every job.

    Use as a context manager; leaving it ends every child.  ``scratch`` is where jobs get their
    directories; ``reads`` are paths that every job may read.  A job is confined to what it says
    (`workers.reach`).
    """

    def __init__(
        self,
        worker: Worker,
        *,
        scratch: Path,
        reads: Sequence[str] = (),
    ) -> None:
        self._scratch = scratch
        self._reads = reads
        self._lock = threading.Lock()
        self._pending: dict[str, _Pending] = {}
        self.ready: Future[None] = Future()  # done when the worker has imported, or is gone
        self._worker = 0  # its pid, once it is ready
        self._emulated = worker.interpreter is not None  # and then confined as a whole
        self._process = launch(worker, writes=[str(scratch)], reads=reads)  # its guardian
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def __enter__(self) -> Host:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def shutdown(self) -> None:
        """Have the worker end if nothing runs in it.

        It does not wait for that: freeing a framework's memory takes the system a while.
        """
        with self._lock:
            if not self._pending:
                self._process.terminate()

    def close(self) -> None:
        """End the worker and everything that it started."""
        assert self._process.stdin is not None
        self._process.terminate()
        with contextlib.suppress(OSError):
            self._process.stdin.close()
        try:
            self._process.wait(timeout=5)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._reader.join(timeout=5)

    def submit(
        self,
        step: Step[J, R],
        job: J,
        *,
        timeout: float,
        memory: int = 0,
        in_worker: bool = False,
    ) -> Future[Reply[R]]:
        """Start *step* on *job*; the future gives a :class:`Reply`, or raises :class:`StepFailed`.

        ``timeout`` is in seconds, ``memory`` in bytes of resident size (0: no limit).  With *in_worker* the
        step runs in the worker itself, before any job submitted later: what it loads is there in their
        processes.  A crash then ends this host.
        """
        try:
            directory = Path(tempfile.mkdtemp(prefix=f"{step.function}-", dir=self._scratch))
            (directory / "job.json").write_bytes(encode(job))
        except (
            OSError
        ) as error:  # told as a failure of the step: who submits may be a thread that nobody waits for
            refused: Future[Reply[R]] = Future()
            refused.set_exception(_failure_of(error, self._scratch) or error)
            return refused
        confinement = (
            confinement_of(
                job, scratch=self._scratch, directory=directory, reads=self._reads, stays=in_worker
            )
            if not self._emulated
            else None
        )
        pending = _Pending(step, directory, timeout, memory, confinement=confinement)
        line = {
            "id": directory.name,
            "step": step.name,
            "directory": str(directory),
            "timeout": timeout,
            "memory": memory,
            "in_worker": in_worker,
            "confinement": confinement and asdict(confinement),
        }
        gone = False
        with self._lock:
            self._pending[directory.name] = pending
            try:
                assert self._process.stdin is not None
                self._process.stdin.write(json.dumps(line).encode() + b"\n")
                self._process.stdin.flush()
            except (OSError, ValueError):
                gone = True
        if gone:
            self._end_all()
        if self._emulated and not self.ready.done():
            threading.Thread(target=self._await_ready, args=(pending,), daemon=True).start()
        if in_worker:
            threading.Thread(target=self._watch, args=(directory.name, pending), daemon=True).start()
        return pending.future

    def _await_ready(self, pending: _Pending) -> None:
        """End an emulated worker that does not get as far as its first job within that one's time."""
        try:
            self.ready.result(timeout=pending.timeout)
        except TimeoutError:
            pending.limit = "time"
            self._process.terminate()

    def _watch(self, name: str, pending: _Pending) -> None:
        """Keep the limits of a step that runs in the worker itself, from when that is ready."""
        self.ready.result()
        started = time.monotonic()
        while self._process.poll() is None:
            limit = ""
            with contextlib.suppress(psutil.Error, OSError):
                if pending.memory and psutil.Process(self._worker).memory_info().rss > pending.memory:
                    limit = "memory"
            if time.monotonic() - started > pending.timeout:
                limit = "time"
            with self._lock:  # a step has kept its limits once its answer is read, and not before
                if name not in self._pending:
                    return
                if limit:
                    pending.limit = limit
                    self._process.terminate()
                    return
            time.sleep(WATCH_SECONDS)

    def run(self, step: Step[J, R], job: J, *, timeout: float, memory: int = 0) -> Reply[R]:
        """:meth:`submit` and wait."""
        return self.submit(step, job, timeout=timeout, memory=memory).result()

    def _read(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            fate = json.loads(line)
            if READY in fate:
                self._worker = fate[READY]
                self.ready.set_result(None)
                continue
            with self._lock:
                pending = self._pending.pop(fate["id"])
            _settle(pending, fate | {"limit": fate["limit"] or pending.limit})
        self._process.wait()
        if not self.ready.done():
            self.ready.set_result(None)
        self._end_all()

    def _end_all(self) -> None:
        """The worker is gone: so are its jobs, by its own limit or signal.

        What waits for them may submit others, so no lock is held then.
        """
        code = self._process.poll() or 0
        with self._lock:
            pendings = list(self._pending.values())
            self._pending.clear()
        for pending in pendings:
            if pending.limit or code < 0:
                _settle(pending, {"exit": 1, "signal": max(-code, 0), "limit": pending.limit})
            elif not pending.future.done():
                pending.future.set_exception(
                    StepFailed("crash", f"the worker for {pending.step.name} ended before it answered")
                )


class InProcess:
    """The same interface in this very process, for what can't be sent elsewhere: a live object.

    Nothing contains a crash here, and no limit holds.
    """

    def __init__(self, *, scratch: Path) -> None:
        self._scratch = scratch

    def shutdown(self) -> None:
        """Do nothing: there is no worker to end."""

    def close(self) -> None:
        """Do nothing: there is no worker to end."""

    def submit(
        self,
        step: Step[J, R],
        job: J,
        *,
        timeout: float,
        memory: int = 0,
        in_worker: bool = True,
    ) -> Future[Reply[R]]:
        """Run *step* on *job* now; the future is done."""
        future: Future[Reply[R]] = Future()
        started = time.monotonic()
        try:
            value = resolve(step.name)(job)
        except MnnprepError as error:
            future.set_exception(
                _failure_of(error, self._scratch) or StepFailed("error", error.what, error=error)
            )
        except Exception as error:  # as in a worker: the pipeline says what it means
            if (failure := _failure_of(error, self._scratch)) is not None:
                future.set_exception(failure)
                return future
            internal_error = InternalError(f"{type(error).__name__}: {said(error)}", seen=step.name)
            future.set_exception(
                StepFailed("error", internal_error.what, log=traceback.format_exc(), error=internal_error)
            )
        else:
            future.set_result(Reply(value, time.monotonic() - started, 0))
        return future


def _tidy(directory: Path) -> None:
    """Remove a job's own files, and its directory where nothing else is in it; a step may have done so."""
    with contextlib.suppress(OSError):
        for name in ("job.json", "reply.json", "log.txt", "doing.txt"):
            (directory / name).unlink(missing_ok=True)
        if not any(directory.iterdir()):
            directory.rmdir()


def _settle(pending: _Pending, fate: dict[str, Any]) -> None:
    """Give a job's future what its fate says, and clear up after it."""
    try:
        pending.future.set_result(_judge(pending, fate))
    except StepFailed as error:
        pending.future.set_exception(error)
    except Exception as error:
        unread = StepFailed("reply", f"its reply could not be read: {error}")
        pending.future.set_exception(_failure_of(error, pending.directory.parent) or unread)
    finally:
        _tidy(pending.directory)


def _judge(pending: _Pending, fate: dict[str, Any]) -> Reply[Any]:
    """The reply of a step that ended, or StepFailed."""
    log = tail(pending.directory / "log.txt")
    doing_path = pending.directory / "doing.txt"
    stage = doing_path.read_text() if doing_path.exists() else ""
    doing = f" while {stage}" if stage else ""
    if fate.get("error"):
        error = from_dict(fate["error"])
        raise StepFailed("error", error.what, log=log, error=error)
    if fate["limit"] == "time":
        raise StepFailed("time", f"took longer than {pending.timeout:g} s{doing}", log=log)
    if fate["limit"] == "memory":
        raise StepFailed("memory", f"used more than {pending.memory / 2**20:.0f} MiB{doing}", log=log)
    if (fate["signal"] or fate["exit"]) and (
        number := _behind(fate["signal"], log, pending.directory.parent)
    ):
        error = fault(number, str(pending.directory.parent))
        raise StepFailed("error", error.what, log=log, error=error)
    if (
        (fate["signal"] or fate["exit"])
        and pending.confinement
        and (stopped := crashed(log, pending.confinement))
    ):
        raise StepFailed("error", stopped.what, log=log, error=stopped)
    if fate["signal"]:
        raise StepFailed(
            "crash",
            f"crashed with {signal_name(fate['signal'])}{doing}",
            log=log,
            signal=fate["signal"],
            stage=stage,
        )
    if fate["exit"]:
        raise StepFailed(
            "crash",
            f"ended with exit status {fate['exit']}{doing}",
            log=log,
            status=fate["exit"],
            stage=stage,
        )
    reply_path = pending.directory / "reply.json"
    if not reply_path.exists():
        raise StepFailed("reply", f"ended without a reply{doing}", log=log)
    reply = decode(reply_path.read_bytes(), Any)
    if "error" in reply:
        error = from_dict(reply["error"])
        log = reply.get("traceback", log)
        raise StepFailed("error", error.what, log=log, error=error) from error
    for ref in msgspec.convert(reply["files"], list[FileRef]):
        _verify(ref)
    return Reply(
        msgspec.convert(reply["value"], pending.step.reply, str_keys=True), fate["seconds"], fate["peak"]
    )


def _behind(number: int, log: str, scratch: Path) -> int:
    """The errno of the fault of the system that a crash came from; 0 if there is none to see.

    It is known by the signal *number* and the last lines.
    """
    if number == signal.SIGXFSZ:
        return errno.EFBIG
    return quoted(log) or exhausted(scratch)


def _failure_of(error: BaseException, scratch: Path) -> StepFailed | None:
    """The failure that a fault of the system makes of a step; None where *error* is something else."""
    found = fault_in(error, str(scratch))
    return StepFailed("error", found.what, error=found) if found is not None else None


def _verify(ref: FileRef) -> None:
    if not os.path.isfile(ref.path):
        raise StepFailed("reply", f"named a file that does not exist: {Path(ref.path).name}")
    if os.path.getsize(ref.path) != ref.size or (ref.size <= HASHED and sha256(ref.path) != ref.sha256):
        raise StepFailed("reply", f"named a file whose bytes are not those it hashed: {Path(ref.path).name}")


def memory_limit(given: int) -> int:
    """The memory limit in bytes: the *given* one, or three quarters of what is free if that is 0."""
    return given or int(psutil.virtual_memory().available * FREE_SHARE)
