"""The worst of many errors, figure by figure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from mnnprep.evidence.check import OutputError


@dataclass(frozen=True)
class Worst:
    """The worst of one output's errors over a set of cases, at one stage (``artifact`` or ``MNN``).

    Each figure is the worst on its own: the largest ``max_abs``, ``max_rel`` and ``excess`` (the share of
    the tolerance used: above 1 fails), the smallest ``cosine`` and ``sqnr_db``; None if no case has
    one.  ``case`` is the case of the largest excess, ``problem`` what is wrong there.  ``output`` is empty
    if a case gave no outputs at all.
    """

    output: str
    stage: str
    case: int
    max_abs: float | None
    max_rel: float | None
    cosine: float | None
    sqnr_db: float | None
    excess: float | None
    problem: str

    @property
    def comparable(self) -> bool:
        """Whether the numbers tell how far it is off.

        Else ``problem`` says why not: a shape, a dtype, a failed run.
        """
        return self.excess is not None and (self.excess > 1 or not self.problem)


def worst_of(output: str, stage: str, errors: Sequence[OutputError]) -> Worst:
    """The worst of *errors*, all of one *output* at one *stage*."""

    def extreme(field: str, pick: str) -> float | None:
        values = [value for value in (getattr(e, field) for e in errors) if value is not None]
        return (max(values) if pick == "max" else min(values)) if values else None

    worst = max(
        errors,
        key=lambda e: (bool(e.problem), e.excess is None and bool(e.problem), e.excess or 0.0, -e.case),
    )
    return Worst(
        output,
        stage,
        worst.case,
        extreme("max_abs", "max"),
        extreme("max_rel", "max"),
        extreme("cosine", "min"),
        extreme("sqnr_db", "min"),
        extreme("excess", "max"),
        worst.problem,
    )
