"""The verdict: one pure function of the evidence, by a profile of the command that concludes."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from enum import Enum

from mnnprep.errors import EXIT_NOT_PROVEN, EXIT_PROVEN, EXIT_REFUSED
from mnnprep.evidence import catalog
from mnnprep.evidence.check import Check, Status
from mnnprep.evidence.row import Family, Row


class Verdict(Enum):
    """The conclusion of the evidence."""

    PROVEN = "proven"
    UNPROVEN = "unproven"
    DIFFERS = "differs"
    REFUSED = "refused"

    @property
    def exit_code(self) -> int:
        """The exit code of a command that comes to it."""
        return {Verdict.PROVEN: EXIT_PROVEN, Verdict.REFUSED: EXIT_REFUSED}.get(self, EXIT_NOT_PROVEN)


@dataclass(frozen=True)
class Profile:
    """By what a command concludes.

    Attributes:
        rows: the checks that fit into its evidence.
        required: the names of those that must be there and pass, whatever they say of themselves.
        ceiling: the verdict that stands if nothing differs; PROVEN if the evidence alone decides.
    """

    rows: tuple[Row | Family, ...]
    required: tuple[str, ...]
    ceiling: Verdict = Verdict.PROVEN

    def fits(self, check: str) -> bool:
        """Whether its evidence may hold a check of this name."""
        return catalog.fits(check, self.rows)

    def with_dims(self, dims: Iterable[str]) -> Profile:
        """The profile for a net with the dynamic dimensions *dims*, each of which needs its check."""
        names = (catalog.DIMENSION.of(name).name for name in dims)
        return replace(self, required=(*self.required, *names))

    def with_targets(self, targets: Iterable[str]) -> Profile:
        """The profile if the model is asked for on *targets* too, each of which needs its check."""
        names = (catalog.TARGET.of(name).name for name in targets)
        return replace(self, required=(*self.required, *names))

    def at_most(self, recorded: Verdict) -> Profile:
        """The profile if nothing can be proven beyond what was *recorded*."""
        return replace(self, ceiling=recorded)


PREPARE = Profile(catalog.PREPARING, catalog.REQUIRED)
VERIFY = Profile(catalog.VERIFYING, (catalog.HASHES.name, catalog.RECORD.name, catalog.MNN_COMPARE.name))
COMPARE = Profile(catalog.COMPARING, (catalog.DETERMINISM.name, catalog.VACUITY.name, catalog.COMPARE.name))


def verdict(evidence: Iterable[Check], profile: Profile) -> Verdict:
    """The verdict of *evidence* by *profile*.

    A check that is required but absent counts as not run: leaving one out can't prove anything.
    """
    checks = list(evidence)
    if not checks or any(c.status is Status.FAILED and c.check in catalog.USABILITY for c in checks):
        return Verdict.REFUSED
    required = [c for c in checks if c.required or c.check in profile.required]
    if any(c.status is Status.FAILED and c.check not in catalog.PROVABILITY for c in required):
        return Verdict.DIFFERS
    if profile.ceiling is not Verdict.PROVEN:
        return profile.ceiling
    complete = {c.check for c in checks}.issuperset(profile.required)
    proven = complete and all(c.status is Status.PASSED for c in required)
    return Verdict.PROVEN if proven else Verdict.UNPROVEN
