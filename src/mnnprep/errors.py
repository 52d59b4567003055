"""Errors a user sees: what failed, the value seen, what to do next, and the exit code.

Every error that reaches a user is a :class:`MnnprepError`.  The command line prints it as one
message (or as one JSON document) and exits with its ``exit_code``; the table of codes:

====  =======================================================================
0     proven, or the command did what it says
1     ran, and the verdict is ``unproven`` or ``differs``; ``check`` found a hazard
2     the call is wrong (:class:`UsageError`)
3     refused (:class:`RefusedError`), or the system failed (:class:`SystemFault`)
70    an error of ours (:class:`InternalError`)
130   interrupted
====  =======================================================================
"""

from __future__ import annotations

from enum import Enum

EXIT_PROVEN = 0
EXIT_NOT_PROVEN = 1
EXIT_USAGE = 2
EXIT_REFUSED = 3
EXIT_INTERNAL = 70
EXIT_INTERRUPTED = 130


class Code(Enum):
    """Which error it is, if something is decided by that: texts are for people."""

    NO_KERNEL = "no_kernel"  # onnxruntime has no kernel for an operator at this dtype
    FACTORY_RAISED = "factory_raised"  # the user's factory ended in an exception of its own


class MnnprepError(Exception):
    """An error with a place to go from: ``what`` failed, the value ``seen``, the ``next`` step.

    ``code`` names the few errors that something is decided by.
    """

    exit_code: int = EXIT_INTERNAL
    kind: str = "internal"

    def __init__(self, what: str, *, seen: str = "", next: str = "", code: Code | None = None) -> None:
        super().__init__(what)
        self.what = what
        self.seen = seen
        self.next = next
        self.code = code

    def __str__(self) -> str:
        parts = [self.what]
        if self.seen:
            parts.append(f"  seen: {self.seen}")
        if self.next:
            parts.append(f"  next: {self.next}")
        return "\n".join(parts)

    def to_dict(self) -> dict[str, str | int]:
        """The error as the ``error`` object of a ``--json`` document."""
        return {
            "kind": self.kind,
            "what": self.what,
            "seen": self.seen,
            "next": self.next,
            "exit_code": self.exit_code,
        }

    def to_message(self) -> dict[str, str | int]:
        """The error as it crosses the process boundary, its ``code`` included."""
        return self.to_dict() | ({"code": self.code.value} if self.code else {})


class UsageError(MnnprepError):
    """The call is wrong: a missing path, a bad specification, an unknown name, keys that don't fit."""

    exit_code = EXIT_USAGE
    kind = "usage"


class RefusedError(MnnprepError):
    """The source can't be taken: foreign, truncated, untrusted, missing extra, over a limit."""

    exit_code = EXIT_REFUSED
    kind = "refused"


class SystemFault(RefusedError):
    """The system could not do its part.

    A full disk, no descriptor left, a directory that can't be written to.

    It says nothing of the model: a check that ends in one was not run.  :mod:`mnnprep.safety.faults` makes
    them.
    """

    kind = "system"


class ConfinedError(RefusedError):
    """A confined step ran into its confinement.

    It says what was tried, and nothing of whether the model is right.
    """

    kind = "confined"


class InternalError(MnnprepError):
    """A defect of mnnprep itself."""


class Interrupted(MnnprepError):
    """The user ended it (Ctrl-C)."""

    exit_code = EXIT_INTERRUPTED
    kind = "interrupted"


ERROR_KINDS: dict[str, type[MnnprepError]] = {
    c.kind: c for c in (UsageError, RefusedError, SystemFault, ConfinedError, InternalError)
}


def from_dict(data: dict[str, str]) -> MnnprepError:
    """The error that :meth:`MnnprepError.to_message` described."""
    cls = ERROR_KINDS.get(data.get("kind", ""), InternalError)
    code = Code(data["code"]) if "code" in data else None
    return cls(data["what"], seen=data.get("seen", ""), next=data.get("next", ""), code=code)
