"""The results of an attempt's stages, each made once: an artifact, its conversion, the runs, the result.

ExportRecipe -> Made | NotMade -> Conversion -> Runs -> AttemptResult -> (with diagnoses) the bundle
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path

import msgspec

from mnnprep.evidence import catalog
from mnnprep.evidence.check import Check, Figures, Status
from mnnprep.evidence.row import Row
from mnnprep.evidence.verdict import Verdict
from mnnprep.formats.backend import ArtifactFormat, ExportRecipe, Sizes
from mnnprep.formats.onnx.scan import operators_in
from mnnprep.formats.registry import ARTIFACTS
from mnnprep.mnn.convert import Converted, Mishap
from mnnprep.mnn.run import MnnRunResult
from mnnprep.mnn.settings import FLOAT16
from mnnprep.model.files import FileRef
from mnnprep.model.messages import CaseFile, Exported, OpsetRefused, RunResult, Survey
from mnnprep.model.precision import Precision
from mnnprep.model.target import Target
from mnnprep.repair.steps import AppliedRule, Finding
from mnnprep.workers.failure import Death, StepFailed
from mnnprep.workers.host import Reply

ConversionDeath = Mishap | Death  # of the converter's own, or of its process


@dataclass(frozen=True)
class Artifact:
    """An artifact's files alone in a directory, where they are run from.

    ``exported`` is what the repairs left, ``original`` what the export gave; the same if no rule applied.
    """

    exported: Exported
    original: Exported
    directory: Path
    repairs: tuple[AppliedRule, ...] = ()

    @property
    def format(self) -> ArtifactFormat:
        """The artifact's format, by the name its export gave."""
        return ARTIFACTS[self.exported.format]

    @property
    def model(self) -> str:
        """The path of the first file."""
        return str(self.directory / Path(self.exported.files[0].path).name)

    @cached_property
    def operators(self) -> frozenset[str]:
        """The operator types of an artifact that rules rewrite, scanned once; of another none."""
        return operators_in(Path(self.model)) if self.format.by_rules else frozenset()

    @property
    def second_file(self) -> str:
        """The path of the file that the converter takes beside the first; empty if the format has none."""
        return str(self.directory / Path(self.exported.files[1].path).name) if self.format.second_file else ""


@dataclass(frozen=True)
class Made:
    """An artifact that is ready to be verified; its conversion is under way."""

    recipe: ExportRecipe
    artifact: Artifact
    converting: Future[Reply[Converted]]
    refused_opsets: tuple[OpsetRefused, ...] = ()


@dataclass(frozen=True)
class NotMade:
    """A recipe that gave no artifact, and why.

    ``exported`` is what was exported before its repair failed; ``checks`` say so.
    """

    recipe: ExportRecipe
    reason: str
    exported: Exported | None = None
    checks: tuple[Check, ...] = ()
    refused_opsets: tuple[OpsetRefused, ...] = ()


@dataclass(frozen=True)
class Conversion:
    """The result of MNN's converter on an artifact.

    ``check`` is the check ``mnn_convert``. A model that was ``converted`` has the names and layouts of its
    inputs and outputs, by the signature's names; ``mismatch`` says in which way those don't fit. ``death`` is
    how the conversion failed, if that names no node.
    """

    check: Check
    converted: Converted | None = None
    input_names: dict[str, str] = field(default_factory=dict)
    output_names: dict[str, str] = field(default_factory=dict)
    layouts: dict[str, str] = field(default_factory=dict)
    mismatch: str = ""
    death: ConversionDeath | None = None

    @property
    def model(self) -> FileRef | None:
        """The converted model's file; None if the conversion failed."""
        return self.converted.file if self.converted else None


@dataclass(frozen=True)
class Runs:
    """The artifact and the converted model on the same cases; None for one that did not run."""

    artifact: RunResult | None = None
    mnn: MnnRunResult | None = None


@dataclass(frozen=True)
class TargetProof:
    """What a target gave: its ``check``, the run, and the cases that it ran, by their indexes.

    ``ran`` is None if it did not run.
    """

    target: Target
    check: Check
    ran: MnnRunResult | None = None
    cases: tuple[int, ...] = ()

    @property
    def in_half(self) -> bool:
        """Whether it ran, in half precision."""
        return self.ran is not None and self.ran.arithmetic == FLOAT16

    @property
    def wrong_in_half(self) -> bool:
        """Whether it computed in half precision, and the result is wrong."""
        return self.in_half and self.check.status is Status.FAILED


@dataclass(frozen=True)
class KnownAtLow:
    """The places of the artifact that MNN computes wrong at precision ``low``, whatever the values.

    ``unknown`` says why they could not be looked for; empty if they were.
    """

    findings: tuple[Finding, ...] = ()
    unknown: str = ""


@dataclass(frozen=True)
class Diagnosis:
    """The cause of a failed check: words for its reason, the subject, and figures.

    ``before``: the words come before the reason that is there, not after it. An empty ``subject`` leaves
    the check's own. ``alone``: the subject is a node that is wrong on right inputs, whatever is around it.
    """

    check: str
    of: str
    words: str
    subject: str = ""
    numbers: Figures = field(default_factory=dict)
    before: bool = False
    alone: bool = False

    def explains(self, check: Check) -> bool:
        """Whether the diagnosis is about this check of this subject."""
        return check.check == self.check and check.subject == self.of

    def applied(self, check: Check) -> Check:
        """*check* with the diagnosis in it."""
        parts = (self.words, check.reason) if self.before else (check.reason, self.words)
        return msgspec.structs.replace(
            check,
            reason="; ".join(parts),
            subject=self.subject or check.subject,
            numbers={**check.numbers, **self.numbers},
        )


@dataclass(frozen=True)
class AttemptResult:
    """The outcome of one recipe.

    Without an ``artifact`` none could be verified, and ``unmade`` says why.

    ``exported`` is there if something was exported at all. ``located``: the first wrong node was looked for.
    ``survey`` is what it was verified against: it may hold a case that a search found.
    """

    recipe: ExportRecipe
    exported: Exported | None = None
    artifact: Artifact | None = None
    conversion: Conversion | None = None
    runs: Runs = Runs()
    checks: tuple[Check, ...] = ()
    verdict: Verdict = Verdict.REFUSED
    unmade: str = ""
    proven_sizes: dict[str, list[int]] = field(default_factory=dict)
    refused_opsets: tuple[OpsetRefused, ...] = ()
    repairs: tuple[AppliedRule, ...] = ()
    targets: tuple[TargetProof, ...] = ()
    located: bool = False
    known: KnownAtLow = KnownAtLow()
    survey: Survey | None = None

    @property
    def reason(self) -> str:
        """Why it is not proven; empty if it is."""
        return "" if self.verdict is Verdict.PROVEN else self.unmade or why_not(self.checks)

    @property
    def opset(self) -> int:
        """The opset of the exported artifact, or the one asked for if nothing was exported."""
        return self.exported.opset if self.exported else self.recipe.opset

    def check(self, row: Row) -> Check | None:
        """The check of *row*, None if it was not asked."""
        return next((c for c in self.checks if c.check == row.name), None)

    def status(self, row: Row) -> Status | None:
        """The status of a check, None if it was not asked."""
        check = self.check(row)
        return check.status if check else None

    @property
    def right(self) -> bool:
        """Whether the artifact, of the format that rules rewrite, computes what the source does."""
        passed = self.status(catalog.ARTIFACT_COMPARE) is Status.PASSED
        return passed and self.exported is not None and ARTIFACTS[self.exported.format].by_rules

    @property
    def sizes_right(self) -> int:
        """How many sizes of open dimensions passed, in the artifact and in MNN."""
        return sum(map(len, self.proven_sizes.values()))

    @property
    def repairable(self) -> bool:
        """Whether the artifact is right, and MNN refuses it or computes something else."""
        sides = (self.status(catalog.MNN_CONVERT), self.status(catalog.MNN_COMPARE))
        return self.right and Status.FAILED in sides

    @property
    def froze_a_size(self) -> bool:
        """Whether the artifact itself is wrong at some size of an open dimension."""
        wrong = self.status(catalog.ARTIFACT_COMPARE) is Status.FAILED
        return wrong and any(
            catalog.DIMENSION.has(c.check) and c.status is Status.FAILED for c in self.checks
        )

    def sizes_frozen_out(self, cases: Sequence[CaseFile]) -> Sizes:
        """The sizes of the largest of *cases* at which the artifact is wrong; none if it froze no size."""
        compare = self.check(catalog.ARTIFACT_COMPARE)
        if compare is None or not self.froze_a_size:
            return ()
        wrong = {error.case for error in compare.outputs if error.problem}
        others = [case for case in cases if case.index in wrong and case.dims != cases[0].dims]
        if not others:
            return ()
        return tuple(max(others, key=lambda case: math.prod(case.dims.values())).dims.items())

    @property
    def right_here(self) -> bool:
        """Whether all that was asked passed, but what was asked of targets."""
        wanted = [c for c in self.checks if c.required and not catalog.TARGET.has(c.check)]
        passed = bool(wanted) and all(c.status is Status.PASSED for c in wanted)
        return passed and bool(self.targets) and self.status(catalog.MNN_COMPARE) is Status.PASSED

    @property
    def wrong_in_half(self) -> bool:
        """Whether the artifact is right, and wrong on a target that computes in half precision alone."""
        return self.right and self.right_here and any(proof.wrong_in_half for proof in self.targets)

    def explained(self, diagnoses: Sequence[Diagnosis]) -> AttemptResult:
        """The same with *diagnoses* in the checks that they explain."""
        if not diagnoses:
            return self
        checks = list(self.checks)
        for diagnosis in diagnoses:
            for index, check in enumerate(self.checks):
                if diagnosis.explains(check):
                    checks[index] = diagnosis.applied(checks[index])
        return replace(self, checks=tuple(checks))


def unanswered(
    row: Row, failure: StepFailed, reason: str, *, numbers: Figures | None = None, unable: bool = False
) -> Check:
    """The check whose step failed, for *reason*.

    It was not run if the failure says nothing of what was asked, or the caller knows that it could not be
    (*unable*).
    """
    answer = row.not_run if failure.unable or unable else row.failed
    return answer(reason, numbers=numbers)


def least_sqnr(exported: Exported, precision: Precision) -> float | None:
    """The SQNR that the converted model must reach, in dB.

    The lower of the artifact's and the asked precision's; None if neither has one.
    """
    return min((db for db in (exported.sqnr_db, precision.sqnr_db) if db is not None), default=None)


def why_not(checks: Iterable[Check]) -> str:
    """Why the evidence is not a proof: the required checks that failed, else those that did not run."""
    checks = list(checks)
    for status in (Status.FAILED, Status.NOT_RUN):
        found = [c for c in checks if c.required and c.status is status]
        if found:
            return "; ".join(f"{c.check}: {c.reason}" for c in found)
    return ""
