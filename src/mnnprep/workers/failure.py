"""How a step can fail, and what that is in one line."""

from __future__ import annotations

import signal
from dataclasses import dataclass
from pathlib import Path

from mnnprep.errors import ConfinedError, InternalError, MnnprepError, SystemFault
from mnnprep.safety.error_text import without_paths

_LAST_LINES = 12
UNABLE_FATES = ("time", "memory")
FROM_OUTSIDE = (signal.SIGKILL, signal.SIGXCPU, signal.SIGXFSZ, signal.SIGSYS)


@dataclass(frozen=True)
class Death:
    """How a step's process ended: by which ``signal`` or exit ``status``, in which ``stage`` of its work.

    Two steps that have equal ones died in the same way.
    """

    fate: str
    signal: int = 0
    status: int = 0
    stage: str = ""


class StepFailed(Exception):
    """A step that did not succeed. ``reason`` is one line; ``log`` the last lines of its output.

    ``fate`` is one of ``error`` (it said why: ``error`` holds that), ``crash`` (by ``signal``, if it was
    one), ``time``, ``memory`` and ``reply`` (it exited with 0 but its reply or its files don't hold).  If
    the system is at fault (a full disk, no descriptor left), ``fate`` is ``error`` and ``error`` a
    :class:`SystemFault`.
    """

    def __init__(
        self,
        fate: str,
        reason: str,
        *,
        log: str = "",
        error: MnnprepError | None = None,
        signal: int = 0,
        status: int = 0,
        stage: str = "",
    ) -> None:
        super().__init__(reason)
        self.fate = fate
        self.reason = reason
        self.log = log
        self.error = self.__cause__ = error
        self.signal = signal
        self.death = Death(fate, signal, status, stage)

    @property
    def unable(self) -> bool:
        """Whether the machine or a limit stood in the way.

        Nothing was then learnt of what the step was asked of.

        A process kills itself by no SIGKILL: the system does when memory runs out.  SIGSYS is a filter of
        system calls.
        """
        return (
            self.fate in UNABLE_FATES
            or self.signal in FROM_OUTSIDE
            or isinstance(self.error, SystemFault | ConfinedError)
        )


def describe(failure: StepFailed) -> str:
    """A failed step in one line: what it said, with the value seen, or how it died."""
    if failure.error is not None:
        if isinstance(failure.error, InternalError):
            return f"{failure.error.what} (in {failure.error.seen})"
        return failure.error.what + (f": {failure.error.seen}" if failure.error.seen else "")
    last = failure.log.strip().splitlines()[-1:] if failure.log else []
    return failure.reason + (f" (last line: {without_paths(last[0])})" if last else "")


def internal(failure: StepFailed, doing: str) -> InternalError:
    """A failure that nothing a user does explains."""
    return InternalError(f"{doing}: {failure.reason}", seen=failure.log)


def signal_name(number: int) -> str:
    """The name of a signal, as SIGSEGV; its number if it has none."""
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"


def tail(path: Path) -> str:
    """The last lines of a log before Python's own account of a crash; at most 64 KiB of it is read."""
    if not path.exists():
        return ""
    with path.open("rb") as file:
        file.seek(max(0, path.stat().st_size - (1 << 16)))
        lines = file.read().decode(errors="replace").partition("Fatal Python error:")[0].splitlines()
    return "\n".join(lines[-_LAST_LINES:])
