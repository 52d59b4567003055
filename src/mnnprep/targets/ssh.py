"""A run on another host, by the system's ssh and scp: a board that has Python, numpy and MNN.

The kit goes to a new directory in the host's temporary one, its Python program runs there, the outputs come
back, and the directory is taken away again. Nothing is asked of a person: a host that wants a password, or
whose key is not known, can't be used.
"""

from __future__ import annotations

import os
import re
import shlex
import shutil
import signal
import subprocess
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from mnnprep.errors import MnnprepError, SystemFault
from mnnprep.mnn.run import MnnRunJob
from mnnprep.mnn.settings import Settings
from mnnprep.model.ssh_host import Host
from mnnprep.targets.kit import PYTHON, write_kit
from mnnprep.targets.outputs import DeviceRuns, read_outputs

CONNECTING = 15  # seconds until a host must have answered
CLEANING = 30  # seconds for taking the directory away
PROGRAM_ENDED = (0, 1)  # every case ran, or a case failed: both leave outputs
SSH_FAILED = 255  # ssh's own exit code
PLACE = re.compile(r"/(?:[\w.+@=-]+/)+mnnprep\.\w+", re.ASCII)
MAKE_PLACE = 'mktemp -d "${TMPDIR:-/tmp}/mnnprep.XXXXXXXXXX"'
OUTPUTS = "outputs"


class NotRun(Exception):
    """Why the host gave no outputs; one line."""


def run_over_ssh(
    host: Host,
    job: MnnRunJob,
    settings: Settings,
    *,
    timeout: float,
    bundle: str = "",
    python: str = "python3",
) -> DeviceRuns:
    """Run *job* on *host* with *settings*; the outputs come to the job's directory.

    *timeout* is in seconds, for all of it; *bundle* the sha256 of the manifest that the job comes from, if
    there is one yet; *python* the interpreter there.

    Raises:
        NotRun: the host can't be reached, lacks Python, numpy or MNN, takes too long, or gave no outputs.
        RefusedError: a case can't be fed to MNN.
        SystemFault: a full disk, or the like, here.
    """
    if settings.backend != "cpu":
        raise NotRun(f"over ssh MNN runs on the CPU only, not on {settings.backend}; use `mnnprep kit`")
    scratch = Path(job.directory)
    kit = scratch / "kit"
    kit.mkdir(parents=True)
    write_kit(kit, job, bundle)
    connection = _Connection(host, time.monotonic() + timeout)
    place = _made(connection.ssh(MAKE_PLACE, "make a directory"))
    try:
        connection.copy(str(kit), f"{host.files}:{place}/", "copy the model and the cases there")
        _run_program(connection, place, settings, python)
        connection.copy(f"{host.files}:{place}/{OUTPUTS}", str(scratch), "copy the outputs back")
    finally:
        with suppress(NotRun):  # what is to be told has happened before
            _Connection(host, time.monotonic() + CLEANING).ssh(f"rm -rf -- {shlex.quote(place)}", "clean up")
    shutil.rmtree(kit)
    try:
        return read_outputs(scratch / OUTPUTS, job)
    except SystemFault:
        raise
    except MnnprepError as error:
        raise NotRun(f"{error.what} ({error.seen})") from error


def _made(printed: str) -> str:
    """The directory that the host made; whatever its shell greets with comes before."""
    place = next(reversed(printed.split("\n")), "")
    if not PLACE.fullmatch(place):
        raise NotRun(f"the host made no temporary directory: {place[:80] or 'it printed nothing'}")
    return place


def _run_program(connection: _Connection, place: str, settings: Settings, python: str) -> None:
    words = [
        *(python, f"kit/{PYTHON}", "kit", "-o", OUTPUTS),
        *("--precision", settings.precision, "--memory", settings.memory),
        *("--threads", str(settings.threads)),
    ]
    command = f"cd {shlex.quote(place)} && {shlex.join(words)}"
    connection.ssh(command, "run the model", also=PROGRAM_ENDED, crash=True)


class _Connection:
    """The system's ssh and scp to one host, all calls together until *deadline* (of the monotonic clock)."""

    def __init__(self, host: Host, deadline: float) -> None:
        self._host = host
        self._deadline = deadline
        self._options = ["-o", "BatchMode=yes", "-o", f"ConnectTimeout={CONNECTING}"]

    def ssh(self, command: str, doing: str, *, also: Sequence[int] = (0,), crash: bool = False) -> str:
        """Run *command* there; what it printed, without the last newline.

        Exit codes among *also* are right; with *crash* so is a death by a signal, which the outputs tell.
        """
        port = ["-p", str(self._host.port)] if self._host.port else []
        code, printed, told = self._called(
            ["ssh", *self._options, *port, "--", self._host.target, command], doing
        )
        if code not in also and not (crash and 128 < code < SSH_FAILED):
            raise self._failed(code, doing, told)
        return printed

    def copy(self, source: str, target: str, doing: str) -> None:
        """Copy a directory there or back."""
        port = ["-P", str(self._host.port)] if self._host.port else []
        code, _, told = self._called(["scp", "-q", "-r", *self._options, *port, "--", source, target], doing)
        if code != 0:
            raise self._failed(code, doing, told)

    def _called(self, words: list[str], doing: str) -> tuple[int, str, str]:
        try:
            process = subprocess.Popen(
                words,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                start_new_session=True,  # so that what it starts ends with it, and asks no terminal
            )
        except FileNotFoundError as error:
            raise NotRun(f"there is no {words[0]} on this machine") from error
        try:
            out, err = process.communicate(timeout=max(0.0, self._deadline - time.monotonic()))
        except subprocess.TimeoutExpired:
            raise NotRun(f"{self._host.target} took too long to {doing}") from None
        finally:
            if process.poll() is None:
                with suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGKILL)
                process.communicate()
        return (
            process.returncode,
            out.decode(errors="replace").removesuffix("\n"),
            err.decode(errors="replace"),
        )

    def _failed(self, code: int, doing: str, told: str) -> NotRun:
        last = next((line for line in reversed(told.splitlines()) if line.strip()), f"exit code {code}")
        return NotRun(f"{self._host.target} could not {doing}: {last.strip()[:200]}")
