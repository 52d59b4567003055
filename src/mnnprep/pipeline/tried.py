"""An attempt and what became of it."""

from __future__ import annotations

from concurrent.futures import Future
from dataclasses import dataclass, field
from pathlib import Path

from mnnprep.core.compare import Tolerance
from mnnprep.core.error_text import without_paths
from mnnprep.core.files import FileRef
from mnnprep.core.messages import Exported, OpsetRefused, Ran
from mnnprep.core.request import Precision
from mnnprep.errors import InternalError
from mnnprep.evidence import catalog
from mnnprep.evidence.check import Check, Figures, Status
from mnnprep.evidence.row import Row
from mnnprep.evidence.verdict import Verdict
from mnnprep.formats.backend import ArtifactFormat, ExportRecipe
from mnnprep.formats.registry import ARTIFACTS
from mnnprep.isolate.host import Death, Reply, StepFailed
from mnnprep.mnn.convert import Converted, Mishap
from mnnprep.rules.steps import AppliedRule

Stumble = Mishap | Death  # of the converter's own, or of its process


@dataclass
class Tried:
    """An attempt and what became of it. Without ``exported`` nothing was made, and ``reason`` says why."""

    attempt: ExportRecipe
    exported: Exported | None = None
    original: Exported | None = None  # what was exported, before repairs
    directory: Path | None = None
    converting: Future[Reply[Converted]] | None = None
    checks: list[Check] = field(default_factory=list)
    verdict: Verdict = Verdict.REFUSED
    reason: str = ""
    mnn: FileRef | None = None
    mnn_weights: FileRef | None = None
    layouts: dict[str, str] = field(default_factory=dict)
    input_names: dict[str, str] = field(default_factory=dict)
    output_names: dict[str, str] = field(default_factory=dict)
    narrowed: dict[str, str] = field(default_factory=dict)
    narrowed_inputs: dict[str, str] = field(default_factory=dict)
    proven_sizes: dict[str, list[int]] = field(default_factory=dict)
    refused_opsets: list[OpsetRefused] = field(default_factory=list)
    converter_version: str = ""
    repairs: list[AppliedRule] = field(default_factory=list)
    hints: dict[str, int] = field(default_factory=dict)
    ran: Ran | None = None  # in MNN
    stumble: Stumble | None = None  # how the conversion failed, where that names no node
    artifact_ran: Ran | None = None
    tolerance: Tolerance = field(default_factory=Tolerance)  # of the artifact against the source
    mnn_tolerance: Tolerance = field(default_factory=Tolerance)

    def status(self, row: Row) -> Status | None:
        """The status of a check, None where it was not asked."""
        return next((c.status for c in self.checks if c.check == row.name), None)

    def repairable(self) -> bool:
        """Whether the artifact is right, of the format that rules rewrite, and MNN refuses it or computes
        something else.
        """
        right = (
            self.exported is not None
            and self.kind.by_rules
            and self.status(catalog.ARTIFACT_COMPARE) is Status.PASSED
        )
        return right and Status.FAILED in (
            self.status(catalog.MNN_CONVERT),
            self.status(catalog.MNN_COMPARE),
        )

    @property
    def opset(self) -> int:
        return self.exported.opset if self.exported else self.attempt.opset

    @property
    def kind(self) -> ArtifactFormat:
        """The format of the artifact, which must be there."""
        assert self.exported is not None
        return ARTIFACTS[self.exported.format]

    @property
    def model(self) -> str:
        """The path of the artifact's first file, where it is run from."""
        assert self.exported is not None and self.directory is not None
        return str(self.directory / Path(self.exported.files[0].path).name)

    @property
    def second_file(self) -> str:
        """The path of the file that the converter takes beside the first; empty where the format has none."""
        assert self.exported is not None and self.directory is not None
        return str(self.directory / Path(self.exported.files[1].path).name) if self.kind.second_file else ""


def unanswered(
    row: Row,
    failure: StepFailed,
    reason: str,
    *,
    numbers: Figures | None = None,
    unable: bool = False,
) -> Check:
    """The check whose step failed, for *reason*: not run where the failure says nothing of what was asked, or
    the caller knows that it could not be (*unable*).
    """
    answer = row.not_run if failure.unable or unable else row.failed
    return answer(reason, numbers=numbers)


def describe(failure: StepFailed) -> str:
    """A failed step in one line: what it said, with the value seen, or how it died."""
    if failure.error is not None:
        if isinstance(failure.error, InternalError):
            return f"{failure.error.what} (in {failure.error.seen})"
        return failure.error.what + (f": {failure.error.seen}" if failure.error.seen else "")
    last = failure.log.strip().splitlines()[-1:] if failure.log else []
    return failure.reason + (f" (last line: {without_paths(last[0])})" if last else "")


def least_sqnr(exported: Exported, precision: Precision) -> float | None:
    """The SQNR that the converted model must reach, in dB: the lower of the artifact's and the asked
    precision's; None where neither has one.
    """
    return min((db for db in (exported.sqnr_db, precision.sqnr_db) if db is not None), default=None)


def why_not(checks: list[Check]) -> str:
    """Why the evidence is not a proof: the required checks that failed, else those that did not run."""
    for status in (Status.FAILED, Status.NOT_RUN):
        found = [c for c in checks if c.required and c.status is status]
        if found:
            return "; ".join(f"{c.check}: {c.reason}" for c in found)
    return ""
