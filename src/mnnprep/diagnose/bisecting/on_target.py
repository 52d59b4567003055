"""A bisection on a target: the same search, with the runs in MNN there."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import msgspec

from mnnprep.comparison.half_precision import wanted_db
from mnnprep.comparison.tolerance import Tolerance
from mnnprep.errors import RefusedError, UsageError
from mnnprep.mnn.run import RUN, MnnRunJob, MnnRunResult
from mnnprep.mnn.settings import FLOAT32, Settings
from mnnprep.model.messages import CaseFile
from mnnprep.model.target import EVERY, Target
from mnnprep.targets.environment import Unavailable, expand, worker_of
from mnnprep.targets.run import settings_of, telling
from mnnprep.workers.step import Step


@dataclass(frozen=True)
class Place:
    """Where a bisection runs MNN: the step, the runtime's settings, and whether it is emulated."""

    step: Step[MnnRunJob, MnnRunResult] = RUN
    settings: Settings = field(default_factory=Settings)
    emulated: bool = False
    session: bool = False

    @property
    def rough(self) -> bool:
        """Whether it may compute in less than float32."""
        low = self.settings.precision == "low"
        return low and (self.emulated or self.settings.arithmetic() != FLOAT32)

    def tolerance(self, given: Tolerance, budget: float | None = None) -> Tolerance:
        """The *given* tolerance, or the SQNR that half precision must keep: *budget* dB, if granted."""
        return given if not self.rough else msgspec.structs.replace(given, sqnr_db=wanted_db(given, budget))

    def cases(self, given: list[CaseFile]) -> list[CaseFile]:
        """Those of the *given* cases that are run there."""
        return telling(given) if self.emulated else given


HERE = Place()


def place_of(target: Target | None, engine: str = "") -> Place:
    """The place that *target* is; None: this machine, in high precision.

    A target that names no engine has *engine*; empty: the installed one.

    Raises:
        UsageError: the target is none that a bisection can run on.
        RefusedError: it can't run here.
    """
    if target is None:
        return HERE
    if target.remote or target.engine == EVERY:
        raise UsageError(
            "bisect runs on one target of this machine",
            seen=str(target),
            next="give for example --target arm64:low",
        )
    (target,) = expand([target], engine)
    try:
        worker = worker_of(target)
    except Unavailable as error:
        raise RefusedError("the target can't run here", seen=str(target), next=str(error)) from error
    emulated = worker.interpreter is not None
    step = replace(RUN, worker=worker)
    return Place(step, settings_of(target), emulated, target.api == "session")
