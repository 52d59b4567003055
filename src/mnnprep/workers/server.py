"""The worker side: a process that imports a framework once and forks a child for every job.

It is started by :class:`mnnprep.workers.host.Host` and speaks JSON lines: jobs on stdin, the fate
of each on stdout.  A child has its own directory, its own log at file-descriptor level, a
time and a memory limit; it writes ``reply.json`` and leaves by ``os._exit``, so that no destructor
of a native library can spoil a finished step.  Whatever a child does, the server stays clean; if the
system lets a child do nothing, not even write its reply, the job's fate on stdout says so.
"""

from __future__ import annotations

import contextlib
import errno
import faulthandler
import gc
import importlib
import json
import os
import select
import signal
import sys
import tempfile
import time
import traceback
from pathlib import Path
from typing import Any, NoReturn

import msgspec
import psutil

from mnnprep.errors import InternalError, MnnprepError, SystemFault, UsageError
from mnnprep.model.files import FileRef
from mnnprep.safety.error_text import said
from mnnprep.safety.faults import FULL, as_large_as_allowed, fault, fault_behind, fault_in, no_room
from mnnprep.workers.confine import Confinement, confine, explained, installation, supported
from mnnprep.workers.guardian import die_with_parent
from mnnprep.workers.quiet import quiet_imports
from mnnprep.workers.reach import parts_of

STEP_PREFIX = "mnnprep."
POLL_SECONDS = 0.05  # how often the limits of children are looked at; their end is seen at once
GARBAGE_THRESHOLD = (
    100_000  # allocations between collections: importing a framework allocates much that stays
)
FIRST_TO_END = "1000"  # the largest value of oom_score_adj, which any process may set for itself
READY = "ready"  # the key of the first line of the protocol, once everything is imported: the worker's pid

_doing_path: Path | None = None


def doing(text: str) -> None:
    """Note what the step does now, so that a crash or a time-out can say so. Free outside a worker."""
    if _doing_path is not None:
        _doing_path.write_text(text)


def main(preload: list[str]) -> None:
    """Serve jobs until stdin ends."""
    jobs, protocol = os.dup(0), os.dup(1)
    null = os.open(os.devnull, os.O_RDWR)
    os.dup2(null, 0)
    os.dup2(null, 1)
    gc.set_threshold(GARBAGE_THRESHOLD)
    _offer_to_the_killer()
    for module in preload:
        with (
            quiet_imports(),
            contextlib.suppress(ImportError, OSError),
        ):  # the step that needs it says so, with the extra to install
            importlib.import_module(module)
    supported(), installation()  # found once, for all children
    os.write(protocol, json.dumps({READY: os.getpid()}).encode() + b"\n")
    woken = _wake_when_a_child_ends()
    children: dict[int, dict[str, Any]] = {}
    pending = b""
    open_ = True
    while open_ or children:
        ready, _, _ = select.select(
            [jobs, woken[0]] if open_ else [woken[0]], [], [], POLL_SECONDS if children else None
        )
        if woken[0] in ready:
            os.read(woken[0], 1 << 16)
        if jobs in ready:
            chunk = os.read(jobs, 1 << 16)
            if not chunk:
                open_ = False
                for pid in children:
                    _kill(pid)
            *lines, pending = (pending + chunk).split(b"\n")
            for line in lines:
                job = json.loads(line)
                try:
                    if job["in_worker"]:
                        os.write(protocol, json.dumps(_run_in_worker(job)).encode() + b"\n")
                    else:
                        words = _last_words()
                        child = _fork(job, (jobs, protocol, *woken), words)
                        children[child] = job | {
                            "started": time.monotonic(),
                            "peak": 0,
                            "limit": "",
                            "words": words,
                        }
                except (
                    OSError,
                    MemoryError,
                ) as error:  # no process, no descriptor, no room for the log or the reply
                    os.write(protocol, json.dumps(_undone(job, error)).encode() + b"\n")
        for pid in list(children):
            fate = _poll(pid, children[pid])
            if fate is not None:
                del children[pid]
                os.write(protocol, json.dumps(fate).encode() + b"\n")


def _offer_to_the_killer() -> None:
    """Have the system end this process and its children before any other when no memory is left.

    The limits of steps that run side by side may add up to more than the machine has.  Source: proc(5),
    /proc/pid/oom_score_adj.
    """
    with contextlib.suppress(OSError):
        Path("/proc/self/oom_score_adj").write_text(FIRST_TO_END)


def _wake_when_a_child_ends() -> tuple[int, int]:
    """A pipe, its reading end first, that becomes readable whenever a child of this process ends."""
    woken, wake = os.pipe()
    os.set_blocking(wake, False)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    signal.set_wakeup_fd(wake, warn_on_full_buffer=False)
    return woken, wake


def _run_in_worker(job: dict[str, Any]) -> dict[str, Any]:
    """Run a step in this process, so that what it loads is there in every child forked afterwards.

    A crash ends the worker, and the parent, which keeps the limits here, sees that.
    """
    started = time.monotonic()
    _enter(job)
    reply = run_step(job["step"], (Path(job["directory"]) / "job.json").read_bytes())
    (Path(job["directory"]) / "reply.json").write_bytes(reply)
    return {
        "id": job["id"],
        "exit": 0,
        "signal": 0,
        "limit": "",
        "seconds": time.monotonic() - started,
        "peak": psutil.Process().memory_info().rss,
    }


def _undone(job: dict[str, Any], error: Exception) -> dict[str, Any]:
    """The fate of a job that the system did not let this process do."""
    return {
        "id": job["id"],
        "exit": 1,
        "signal": 0,
        "limit": "",
        "seconds": 0.0,
        "peak": 0,
        "error": _told(error, job["directory"]),
    }


def _told(error: BaseException, place: str) -> dict[str, str | int]:
    return (
        fault_in(error, place) or InternalError(f"{type(error).__name__}: {error}", seen=place)
    ).to_message()


def _last_words() -> int:
    """A file in memory in which a child says what it can't say on the disk."""
    return os.memfd_create("last-words")


def _enter(job: dict[str, Any]) -> None:
    """Make a job's directory this process's own, and its log the place of all output.

    The process is confined to what the job says.
    """
    global _doing_path
    directory = Path(job["directory"])
    os.environ["TMPDIR"] = tempfile.tempdir = str(directory)
    os.chdir(directory)
    log = os.open(directory / "log.txt", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    os.dup2(log, 1)
    os.dup2(log, 2)
    os.close(log)
    sys.stdout = open(1, "w", buffering=1, closefd=False)  # noqa: SIM115
    sys.stderr = open(2, "w", buffering=1, closefd=False)  # noqa: SIM115
    faulthandler.enable(2)
    _doing_path = directory / "doing.txt"
    if job["confinement"]:
        confine(Confinement.of(job["confinement"]))


def _poll(pid: int, job: dict[str, Any]) -> dict[str, Any] | None:
    """The fate of a child that ended; ends one that is over a limit."""
    done, status, usage = os.wait4(pid, os.WNOHANG)
    seconds = time.monotonic() - job["started"]
    if done:
        _kill(pid)  # whatever it left running in its group
        code = os.waitstatus_to_exitcode(status)
        said = os.pread(job["words"], 1 << 16, 0)
        os.close(job["words"])
        return {
            "error": json.loads(said) if said else None,
            "id": job["id"],
            "exit": max(code, 0),
            "signal": max(-code, 0),
            "limit": job["limit"],
            "seconds": seconds,
            "peak": max(job["peak"], usage.ru_maxrss * 1024),
        }
    with contextlib.suppress(psutil.Error, OSError):
        job["peak"] = max(job["peak"], psutil.Process(pid).memory_info().rss)
    if not job["limit"]:
        if seconds > job["timeout"]:
            job["limit"] = "time"
        elif job["memory"] and job["peak"] > job["memory"]:
            job["limit"] = "memory"
        if job["limit"]:
            _kill(pid)
    return None


def _kill(pid: int) -> None:
    for kill in (os.killpg, os.kill):
        with contextlib.suppress(ProcessLookupError, PermissionError):
            kill(pid, signal.SIGKILL)


def _fork(job: dict[str, Any], own: tuple[int, ...], words: int) -> int:
    gc.freeze()  # what is there stays: no collection in the child touches, and so copies, its pages
    worker = os.getpid()
    try:
        pid = os.fork()
    except OSError:
        os.close(words)
        raise
    if pid:
        return pid
    signal.set_wakeup_fd(-1)
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    for descriptor in own:  # whatever a step starts and leaves, the parent still sees the worker end
        os.close(descriptor)
    _child(job, worker, words)


def _child(job: dict[str, Any], worker: int, words: int) -> NoReturn:
    """Run one step in this process, forked from *worker*, and leave.

    *words* takes what can't be written elsewhere.
    """
    code = 1
    try:
        os.setpgid(0, 0)
        die_with_parent(worker)
        _enter(job)
        reply = run_step(job["step"], (Path(job["directory"]) / "job.json").read_bytes())
        (Path(job["directory"]) / "reply.json").write_bytes(reply)
        code = 0
    except BaseException as error:
        if isinstance(error, OSError | MemoryError):
            os.write(words, json.dumps(_told(error, job["directory"])).encode())
        traceback.print_exc()
    finally:
        with contextlib.suppress(Exception):
            sys.stdout.flush()
            sys.stderr.flush()
        os._exit(code)


def run_step(step: str, job: bytes) -> bytes:
    """Call the step ``package.module:function`` and encode its reply, or the error it raised."""
    try:
        function = resolve(step)
        value = function(decode(job, job_type(function)))
        files = [part for part in parts_of(value) if isinstance(part, FileRef)]
        _require_whole(files)
        reply: dict[str, Any] = {"value": value, "files": files}
    except MnnprepError as error:
        reply = {"error": (explained(error) or _system_fault(error) or error).to_message()}
    except Exception as error:
        traceback.print_exc()
        told = (
            explained(error)
            or _system_fault(error)
            or InternalError(f"{type(error).__name__}: {said(error)}", seen=step)
        )
        reply = {"error": told.to_message(), "traceback": traceback.format_exc()}
    return encode(reply)


def encode(value: Any) -> bytes:
    """Return a message across the boundary, as JSON.

    A path or a name with halves of surrogate pairs, which UTF-8 does not have, goes by escapes.
    """
    try:
        return msgspec.json.encode(value)
    except UnicodeEncodeError:
        return json.dumps(msgspec.to_builtins(value)).encode()


def decode(data: bytes, type: Any) -> Any:
    """The message that :func:`encode` wrote. Raises msgspec.ValidationError where it is not of *type*."""
    try:
        return msgspec.json.decode(data, type=type)
    except msgspec.ValidationError:
        raise
    except msgspec.DecodeError:
        return msgspec.convert(json.loads(data), type, str_keys=True)


def _system_fault(error: Exception) -> SystemFault | None:
    """The fault of the system behind *error*; a wrong call is one also if a disk happens to be full."""
    here = tempfile.gettempdir()
    return fault_in(error, here) if isinstance(error, UsageError) else fault_behind(error, here)


def _require_whole(files: list[FileRef]) -> None:
    """Require that the step wrote its files whole.

    Native code does not always look whether it could write.

    Raises:
        SystemFault: a file may lack its end.
    """
    here = Path(tempfile.gettempdir())
    written = [
        file.path
        for file in files
        if Path(file.path).is_relative_to(here.parent) and os.path.isfile(file.path)
    ]
    for path in written:
        if as_large_as_allowed(path):
            raise fault(errno.EFBIG, path)
    if written and (number := no_room(here)) in FULL:
        raise fault(number, str(here))


def resolve(step: str) -> Any:
    """The function that a step's name stands for; only mnnprep's own can be named."""
    module, _, name = step.partition(":")
    if not module.startswith(STEP_PREFIX):
        raise InternalError("a step outside mnnprep was asked for", seen=step)
    return getattr(importlib.import_module(module), name)


def job_type(function: Any) -> Any:
    """The type of the step's one argument."""
    import inspect

    signature = inspect.signature(function, eval_str=True)
    return next(iter(signature.parameters.values())).annotation
