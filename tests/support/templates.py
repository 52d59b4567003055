"""Workers of this process that are forked from templates, which have imported their frameworks.

Importing a framework takes longer than most tests compute. A template does it once in a session, and imports
the modules of the worker's steps, too, which every child of a user's worker imports for itself. Every run
still has workers of its own, each under its guardian, with a child for every job, as
:mod:`mnnprep.workers.launch` starts them. Only the imports are shared. The workers of a program of its own
(`support.command.program`), those of a test file marked ``own_workers``, and those in an environment that a
test has changed are started as users' runs start them.
"""

from __future__ import annotations

import atexit
import contextlib
import gc
import json
import os
import select
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import IO

from mnnprep.workers import launch
from mnnprep.workers.step import Step, Worker

PROGRAM = Path(__file__).parent / "programs" / "template.py"
ALSO_CHANGES = "PYTEST_CURRENT_TEST"  # in the environment, from test to test; no worker reads it
TOO = {"LiteRT": ("tf2onnx",)}  # what steps of a worker import themselves, and takes seconds each time
GONE = -signal.SIGKILL  # the exit code of a worker whose template has ended

_start = launch._start
_lock = threading.Lock()
_unchanged: dict[str, str] = {}  # the environment at the start of a test file
_templates: dict[tuple[str, ...], Template] = {}


class Forked:
    """What a host uses of :class:`subprocess.Popen`, for a worker that a template has forked."""

    def __init__(self, stdin: IO[bytes], stdout: IO[bytes], status: int) -> None:
        self.stdin, self.stdout = stdin, stdout
        self.returncode: int | None = None
        self._pid = 0  # until the template has imported, and forked it
        self._status, self._lock = open(status, "rb", buffering=0), threading.RLock()  # noqa: SIM115

    @property
    def pid(self) -> int:
        """Its process id; waits for the template to have imported."""
        with self._lock:
            if not self._pid and self.returncode is None:
                self._pid = int(self._status.readline() or 0)
            return self._pid

    def wait(self, timeout: float | None = None) -> int:
        """Wait for its end: the exit code, below 0 its signal."""
        with self._lock:
            while self.returncode is None:
                if not select.select([self._status], [], [], timeout)[0]:
                    raise subprocess.TimeoutExpired(str(PROGRAM), timeout or 0)
                if not self._pid and self.pid:
                    continue
                self.returncode = int(self._status.readline() or GONE)
                self._status.close()
            return self.returncode

    def poll(self) -> int | None:
        """The exit code, once it has one."""
        if self.returncode is None and self._lock.acquire(blocking=False):  # held: it is being waited for
            try:
                with contextlib.suppress(subprocess.TimeoutExpired):
                    return self.wait(0)
            finally:
                self._lock.release()
        return self.returncode

    def _signal(self, number: int) -> None:
        if self.poll() is None and (pid := self._pid or self.pid):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, number)

    def terminate(self) -> None:
        """Have it end."""
        self._signal(signal.SIGTERM)

    def kill(self) -> None:
        """End it."""
        self._signal(signal.SIGKILL)


class Template:
    """A process that has imported *worker*'s modules; :meth:`fork` gives a worker."""

    def __init__(self, worker: Worker, variables: dict[str, str]) -> None:
        self._socket, other = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.variables = variables
        with other:
            self._process = subprocess.Popen(
                [
                    sys.executable,
                    "-P",
                    *(["-s"] if sys.flags.no_user_site else []),
                    "-c",
                    PROGRAM.read_text(),  # as -c, which is how launch does it: no file of ours is on a stack
                    str(launch.PACKAGE.parent),
                    str(other.fileno()),
                    json.dumps(_modules_of_steps(worker)),
                    *worker.imports,
                ],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                env=variables,
                pass_fds=[other.fileno()],
            )

    def fork(self) -> Forked:
        """A worker of its own."""
        (job_end, jobs), (fates, fate_end), (status, status_end) = os.pipe(), os.pipe(), os.pipe()
        request = json.dumps({"cwd": os.getcwd()}).encode()
        try:
            socket.send_fds(self._socket, [request], [job_end, fate_end, status_end])
        finally:
            for descriptor in (job_end, fate_end, status_end):
                os.close(descriptor)
        return Forked(open(jobs, "wb"), open(fates, "rb"), status)

    def close(self) -> None:
        """End it, and with it every worker that is left."""
        self._socket.close()
        self._process.wait()


def _modules_of_steps(worker: Worker) -> list[str]:
    """What the steps of *worker* import, of those that are known by now: their modules, and :data:`TOO`."""
    found = {o.module for o in gc.get_objects() if type(o) is Step and o.worker == worker}
    return [*TOO.get(worker.name, ()), *sorted(found)]


def _same(variables: dict[str, str]) -> dict[str, str]:
    return {name: value for name, value in variables.items() if name != ALSO_CHANGES}


def _forked(worker: Worker, variables: dict[str, str]) -> Forked | subprocess.Popen[bytes]:
    """In place of :func:`mnnprep.workers.launch._start`."""
    if _same(variables) != _same(_unchanged | dict(worker.environment)):
        return _start(worker, variables)
    key = (*worker.imports, *(f"{name}={value}" for name, value in worker.environment))
    with _lock:
        if key in _templates and _same(_templates[key].variables) != _same(variables):
            _templates.pop(key).close()  # an import has changed the environment for all that follow
        if key not in _templates:
            _templates[key] = Template(worker, variables)
        return _templates[key].fork()


@contextlib.contextmanager
def shared_imports() -> Iterator[None]:
    """Within the block, fork the workers of this process from templates."""
    global _unchanged
    _unchanged = launch._variables(Worker("any"))
    launch._start = _forked  # type: ignore[assignment]
    try:
        yield
    finally:
        launch._start = _start


@atexit.register
def _end() -> None:
    for template in _templates.values():
        template.close()
    _templates.clear()
