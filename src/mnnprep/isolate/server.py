"""The worker side: a process that imports a framework once and forks a child for every job.

It is started by :class:`mnnprep.isolate.host.Host` and speaks JSON lines: jobs on stdin, the fate
of each on stdout.  A child has its own directory, its own log at file-descriptor level, a
time and a memory limit; it writes ``reply.json`` and leaves by ``os._exit``, so that no destructor
of a native library can spoil a finished step.  Whatever a child does, the server stays clean.
"""

from __future__ import annotations

import contextlib
import ctypes
import faulthandler
import gc
import importlib
import json
import os
import resource
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

from mnnprep.core.files import FileRef
from mnnprep.core.prose import said
from mnnprep.errors import InternalError, MnnprepError, RefusedError

STEP_PREFIX = "mnnprep."
POLL_SECONDS = 0.05  # how often the limits of children are looked at; their end is seen at once
GARBAGE_THRESHOLD = 100_000  # allocations between collections: importing a framework allocates much that stays
READY = {"ready": True}  # the first line of the protocol: everything is imported
PR_SET_PDEATHSIG = 1  # <sys/prctl.h>

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
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent decides what an interrupt ends
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    gc.set_threshold(GARBAGE_THRESHOLD)
    for module in preload:
        with contextlib.suppress(ImportError):  # the step that needs it says so, with the extra to install
            importlib.import_module(module)
    os.write(protocol, json.dumps(READY).encode() + b"\n")
    woken = _wake_when_a_child_ends()
    children: dict[int, dict[str, Any]] = {}
    pending = b""
    open_ = True
    while open_ or children:
        ready, _, _ = select.select([jobs, woken[0]] if open_ else [woken[0]], [], [], POLL_SECONDS if children else None)
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
                if job["here"]:
                    os.write(protocol, json.dumps(_run_here(job)).encode() + b"\n")
                else:
                    children[_fork(job, (jobs, protocol, *woken))] = job | {"started": time.monotonic(), "peak": 0, "limit": ""}
        for pid in list(children):
            fate = _poll(pid, children[pid])
            if fate is not None:
                del children[pid]
                os.write(protocol, json.dumps(fate).encode() + b"\n")


def _wake_when_a_child_ends() -> tuple[int, int]:
    """A pipe, its reading end first, that becomes readable whenever a child of this process ends."""
    woken, wake = os.pipe()
    os.set_blocking(wake, False)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    signal.set_wakeup_fd(wake, warn_on_full_buffer=False)
    return woken, wake


def _run_here(job: dict[str, Any]) -> dict[str, Any]:
    """Run a step in this process, so that what it loads is there in every child forked afterwards.

    A crash ends the worker, and the parent, which keeps the limits here, sees that.
    """
    started = time.monotonic()
    _enter(job)
    reply = run_step(job["step"], (Path(job["directory"]) / "job.json").read_bytes())
    (Path(job["directory"]) / "reply.json").write_bytes(reply)
    return {"id": job["id"], "exit": 0, "signal": 0, "limit": "", "seconds": time.monotonic() - started, "peak": psutil.Process().memory_info().rss}


def _enter(job: dict[str, Any]) -> None:
    """Make a job's directory this process's own, and its log the place of all output."""
    global _doing_path
    directory = Path(job["directory"])
    os.environ["TMPDIR"] = tempfile.tempdir = str(directory.parent)  # the run's scratch
    os.chdir(directory)
    log = os.open(directory / "log.txt", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    os.dup2(log, 1)
    os.dup2(log, 2)
    os.close(log)
    sys.stdout = open(1, "w", buffering=1, closefd=False)  # noqa: SIM115
    sys.stderr = open(2, "w", buffering=1, closefd=False)  # noqa: SIM115
    faulthandler.enable(2)
    _doing_path = directory / "doing.txt"


def _poll(pid: int, job: dict[str, Any]) -> dict[str, Any] | None:
    """The fate of a child that ended; ends one that is over a limit."""
    done, status, usage = os.wait4(pid, os.WNOHANG)
    seconds = time.monotonic() - job["started"]
    if done:
        _kill(pid)  # whatever it left running in its group
        code = os.waitstatus_to_exitcode(status)
        return {
            "id": job["id"], "exit": max(code, 0), "signal": max(-code, 0), "limit": job["limit"],
            "seconds": seconds, "peak": max(job["peak"], usage.ru_maxrss * 1024),
        }  # fmt: skip
    with contextlib.suppress(psutil.Error):
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


def _fork(job: dict[str, Any], own: tuple[int, ...]) -> int:
    gc.freeze()  # what is there stays: no collection in the child touches, and so copies, its pages
    pid = os.fork()
    if pid:
        return pid
    signal.set_wakeup_fd(-1)
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    for descriptor in own:  # whatever a step starts and leaves, the parent still sees the worker end
        os.close(descriptor)
    _child(job)


def _child(job: dict[str, Any]) -> NoReturn:
    """Run one step in this (forked) process and leave."""
    code = 1
    try:
        os.setpgid(0, 0)
        if sys.platform == "linux":
            ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
        _enter(job)
        reply = run_step(job["step"], (Path(job["directory"]) / "job.json").read_bytes())
        (Path(job["directory"]) / "reply.json").write_bytes(reply)
        code = 0
    except BaseException:
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
        value = function(msgspec.json.decode(job, type=job_type(function)))
        reply: dict[str, Any] = {"value": value, "files": list(_files(value))}
    except MnnprepError as error:
        reply = {"error": error.to_dict()}
    except MemoryError:
        reply = {"error": RefusedError("the step ran out of memory", next="use a machine with more memory").to_dict()}
    except Exception as error:
        traceback.print_exc()
        reply = {"error": InternalError(f"{type(error).__name__}: {said(error)}", seen=step).to_dict(), "traceback": traceback.format_exc()}
    return msgspec.json.encode(reply)


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


def _files(value: Any) -> Any:
    """Every FileRef inside a reply."""
    if isinstance(value, FileRef):
        yield value
    elif isinstance(value, msgspec.Struct):
        for field in value.__struct_fields__:
            yield from _files(getattr(value, field))
    elif isinstance(value, dict):
        for item in value.values():
            yield from _files(item)
    elif isinstance(value, (list, tuple)):
        for item in value:
            yield from _files(item)
