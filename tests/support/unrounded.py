"""A rounded run that can't be had, as where the artifact's runtime is not installed."""

from __future__ import annotations

from mnnprep.attempt.target_verifier import Rounding
from mnnprep.model.half import HalfType
from mnnprep.model.messages import CaseFile, RunResult


class Unrounded(Rounding):
    """Nothing is run."""

    def __init__(self) -> None:
        """Nothing is needed."""

    def run(self, cases: list[CaseFile], to: HalfType) -> RunResult | None:
        return None
