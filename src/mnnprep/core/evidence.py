"""Checks, evidence and the verdict: one pure function of the evidence."""

from __future__ import annotations

from collections.abc import Iterable
from enum import Enum

import msgspec

from mnnprep.errors import EXIT_NOT_PROVEN, EXIT_PROVEN, EXIT_REFUSED


class Status(Enum):
    PASSED = "passed"
    FAILED = "failed"
    NOT_RUN = "not_run"


class Verdict(Enum):
    PROVEN = "proven"
    UNPROVEN = "unproven"
    DIFFERS = "differs"
    REFUSED = "refused"

    @property
    def exit_code(self) -> int:
        return {Verdict.PROVEN: EXIT_PROVEN, Verdict.REFUSED: EXIT_REFUSED}.get(self, EXIT_NOT_PROVEN)


class OutputError(msgspec.Struct, frozen=True, omit_defaults=True):
    """One output's error in one case.

    ``max_abs`` is max|a-b|, ``max_rel`` max|a-b|/|ref| where ref is not 0, ``cosine`` the cosine
    similarity, ``sqnr_db`` 10*log10(sum ref^2 / sum (a-b)^2) (absent when there is no error),
    ``excess`` the largest |a-b| divided by the tolerance at its element: above 1 is a failure.
    ``problem`` says why a comparison of numbers was not possible (shape, dtype, non-finite places).
    """

    output: str
    case: int
    max_abs: float | None = None
    max_rel: float | None = None
    cosine: float | None = None
    sqnr_db: float | None = None
    excess: float | None = None
    problem: str = ""


class Check(msgspec.Struct, frozen=True, omit_defaults=True, kw_only=True):
    """One question with three possible answers.

    ``subject`` is what it was asked of (a node, an output, a dimension); ``reason`` why it failed or
    did not run; ``numbers`` its figures by name; ``outputs`` the errors behind a comparison.
    """

    check: str
    status: Status
    required: bool = True
    reason: str = ""
    subject: str = ""
    numbers: dict[str, int | float | str | list[int | str]] = msgspec.field(default_factory=dict)
    outputs: list[OutputError] = msgspec.field(default_factory=list)


def passed(check: str, **fields: object) -> Check:
    return msgspec.convert({"check": check, "status": "passed", **fields}, Check)


def failed(check: str, reason: str, **fields: object) -> Check:
    return msgspec.convert({"check": check, "status": "failed", "reason": reason, **fields}, Check)


def not_run(check: str, reason: str, **fields: object) -> Check:
    return msgspec.convert({"check": check, "status": "not_run", "reason": reason, **fields}, Check)


# Required of every proof; `dimension:NAME` joins for every dynamic dimension.
REQUIRED = (
    "inference_mode",
    "determinism",
    "self_contained",
    "weights",
    "reference",
    "artifact_compare",
    "mnn_convert",
    "mnn_compare",
    "vacuity",
)

# Failing one of these says that the inputs or the source can't prove anything, not that something is wrong.
PROVABILITY = frozenset({"determinism", "vacuity", "noise", "branches", "coverage"})
# Failing one of these leaves nothing to compare.
USABILITY = frozenset({"artifact", "mnn_convert"})

# Asked of some sources only, or told for the reader.
OPTIONAL = frozenset(
    {
        "repairs",
        "samples",
        "given_outputs",
        "standard",
        "third_opinion",
        "standing",
        "mnn_session",
        "precision",
        "unused_weights",
        "frontend_operators",
        "operators",
    }
)


def known_check(name: str) -> bool:
    """Whether a bundle's evidence may hold a check of this name."""
    return name.startswith(("dimension:", "metric:")) or name in {
        *REQUIRED,
        *PROVABILITY,
        *USABILITY,
        *OPTIONAL,
    }


def verdict(evidence: Iterable[Check], dims: Iterable[str] = ()) -> Verdict:
    """The verdict of *evidence* for a net with the dynamic dimensions *dims*.

    A check that is required but absent counts as not run: leaving one out can't prove anything.
    """
    checks = list(evidence)
    if not checks or any(c.status is Status.FAILED and c.check in USABILITY for c in checks):
        return Verdict.REFUSED
    wanted = {*REQUIRED, *(f"dimension:{name}" for name in dims)}
    required = [c for c in checks if c.required or c.check in wanted]
    if any(c.status is Status.FAILED and c.check not in PROVABILITY for c in required):
        return Verdict.DIFFERS
    if not wanted <= {c.check for c in checks} or any(c.status is not Status.PASSED for c in required):
        return Verdict.UNPROVEN
    return Verdict.PROVEN
