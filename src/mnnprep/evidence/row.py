"""A row of the catalogue: all that is known of a check before it is asked, and the only maker of checks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from enum import Enum
from typing import TypedDict, Unpack

import msgspec

from mnnprep.evidence.check import Check, Figures, Numbers, OutputError, Status

PAGE = "docs/proof.md"


class Role(Enum):
    """The meaning of a required check's failure."""

    COMPARISON = "differs"  # something computes, holds or says something else than it should
    PROVABILITY = "proves nothing"  # the inputs or the source can't prove anything; nothing is wrong
    USABILITY = "nothing to compare"  # there is no model
    INFORMATIVE = "told"  # for the reader; no verdict depends on it


class Need(Enum):
    """When a proof needs the check."""

    ALWAYS = "always"  # a check that is absent counts as not run
    ASKED = "where it is asked"
    NEVER = "no"


class Details(TypedDict, total=False):
    """What a check says beside its status and its reason.

    Attributes:
        subject: what it was asked of.
        numbers: its figures.
        outputs: the error of each output.
        required: whether the verdict depends on it; None: as its row says.
    """

    subject: str
    numbers: Figures | None
    outputs: Sequence[OutputError]
    required: bool | None


@dataclass(frozen=True, kw_only=True)
class Row:
    """One check of the catalogue.

    Attributes:
        name: what the manifest calls it.
        question: what it asks, in words.
        catches: what it finds, for the documentation.
        if_failed: the next step for a reader where it failed.
        if_not_run: the next step where it was not run.
        role: what a failure means.
        need: when a proof needs it.
        if_followed: the reader's next step where that advice was followed already.
    """

    name: str
    question: str
    catches: str
    if_failed: str
    if_not_run: str = "prepare the model again; if the check stays not run, its reason says what is missing"
    role: Role = Role.COMPARISON
    need: Need = Need.ASKED
    if_followed: str = ""

    @property
    def required(self) -> bool:
        """Whether its checks count for the verdict, unless the one who asks says otherwise."""
        return self.need is not Need.NEVER

    @property
    def anchor(self) -> str:
        """Its place in the documentation, by the name of its family if it has one."""
        return f"{PAGE}#check-{self.name.partition(':')[0]}"

    def remedy(self, status: Status, *, followed: bool = False) -> str:
        """The next step for a reader where the check did not pass, and ended as *status*.

        *followed*: the reader has done what the row advises already.
        """
        if followed and self.if_followed:
            return self.if_followed
        return self.if_failed if status is Status.FAILED else self.if_not_run

    def passed(self, *, reason: str = "", **details: Unpack[Details]) -> Check:
        """The check, passed; *reason* is what there is to say all the same."""
        return self._made(Status.PASSED, reason, **details)

    def failed(self, reason: str, **details: Unpack[Details]) -> Check:
        """The check, failed for *reason*."""
        return self._made(Status.FAILED, reason, **details)

    def not_run(self, reason: str, **details: Unpack[Details]) -> Check:
        """The check, not run for *reason*."""
        return self._made(Status.NOT_RUN, reason, **details)

    def _made(
        self,
        status: Status,
        reason: str,
        *,
        subject: str = "",
        numbers: Figures | None = None,
        outputs: Sequence[OutputError] = (),
        required: bool | None = None,
    ) -> Check:
        return Check(
            check=self.name,
            status=status,
            required=self.required if required is None else required,
            reason=reason,
            subject=subject,
            numbers=msgspec.convert(dict(numbers or {}), Numbers),  # NumPy's scalars are refused
            outputs=list(outputs),
        )


@dataclass(frozen=True)
class Family:
    """Checks that are asked alike of several things: ``prefix`` and the thing's name make the check's name.

    ``row`` describes them all.
    """

    prefix: str
    row: Row

    def of(self, name: str) -> Row:
        """The row of the check that is asked of *name*."""
        return replace(self.row, name=self.prefix + name)

    def has(self, check: str) -> bool:
        """Whether a check of this name is one of the family."""
        return check.startswith(self.prefix)

    def member(self, check: str) -> str:
        """Return the subject that the check of this name was asked about."""
        return check.removeprefix(self.prefix)
