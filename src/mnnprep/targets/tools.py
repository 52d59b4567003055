"""Programs that making an environment starts: pip, apt, dpkg and emulators."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Mapping, Sequence

from mnnprep.errors import RefusedError

_LAST_LINES = 6
_NAMES = {"arm64": "aarch64", "x86_64": "x86_64"}  # of an architecture, in QEMU, Python and wheels


def machine_name(arch: str) -> str:
    """The name that QEMU, Python and wheels have for *arch*."""
    return _NAMES[arch]


def emulator(arch: str) -> str:
    """The path of QEMU's user-mode emulator for *arch*; empty if none is installed."""
    name = f"qemu-{machine_name(arch)}"
    return shutil.which(f"{name}-static") or shutil.which(name) or ""


def call(
    command: Sequence[str],
    doing: str,
    *,
    next: str,
    environment: Mapping[str, str] | None = None,
    seconds: float | None = None,
) -> str:
    """Run *command* and return what it printed.

    Raises:
        RefusedError: the program is not there, failed, or took more than *seconds*; *next* says what to do.
    """
    try:
        done = subprocess.run(
            command,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            env={**os.environ, "PYTHONDONTWRITEBYTECODE": "", **(environment or {})},
            timeout=seconds,
            check=False,
        )
    except FileNotFoundError as error:
        raise RefusedError(
            f"{doing} needs the program {command[0]}", seen="it is not installed", next=next
        ) from error
    except subprocess.TimeoutExpired as error:
        raise RefusedError(f"{doing} took too long", seen=f"more than {seconds:g} s", next=next) from error
    if done.returncode:
        told = (done.stderr.strip() or done.stdout.strip()).splitlines()[-_LAST_LINES:]
        raise RefusedError(
            f"{doing} failed", seen=f"exit status {done.returncode}: {' | '.join(told)}", next=next
        )
    return done.stdout
