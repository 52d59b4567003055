"""Making an artifact by a recipe: export it, repair it, start its conversion.

Nothing here needs the survey, which runs meanwhile.
"""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Sequence
from concurrent.futures import Future
from pathlib import Path

import msgspec

from mnnprep.attempt.results import Artifact, AttemptResult, Made, NotMade, unanswered, why_not
from mnnprep.evidence import catalog
from mnnprep.formats.backend import ExportRecipe, SourceSteps
from mnnprep.formats.onnx.magnitudes import MAGNITUDES, MagnitudesJob
from mnnprep.formats.onnx.same_node import SAME_NODE, SameNodeJob
from mnnprep.formats.onnx.scan import operators_in
from mnnprep.formats.registry import ARTIFACTS
from mnnprep.mnn.convert import CONVERT, Converted, ConvertJob
from mnnprep.mnn.frontends import listed_operators
from mnnprep.model.files import FileRef
from mnnprep.model.magnitudes import Magnitude
from mnnprep.model.messages import CaseFile, Exported, ExportJob, InputSpecs, OpsetRefused, Source
from mnnprep.model.request import Request
from mnnprep.repair.steps import REPAIR, AppliedRule, Repaired, RepairJob
from mnnprep.repair.table import all_rules, always_rules, applicable, low_rules
from mnnprep.text import Progress
from mnnprep.workers.failure import StepFailed, describe
from mnnprep.workers.host import Reply
from mnnprep.workers.pool import Workers

MEASURED_CASES = 8  # how many are run to see how large the values get


def start_export(
    workers: Workers,
    steps: SourceSteps,
    source: Source,
    wants: InputSpecs,
    recipe: ExportRecipe,
    tflite_precision: str = "",
) -> Future[Reply[Exported]]:
    """Start the export of *source* by one recipe, beside whatever else runs."""
    directory = str(workers.directory("export"))
    job = ExportJob(
        source=source,
        wants=wants,
        method=recipe.method,
        opset=recipe.opset,
        directory=directory,
        tflite_precision=tflite_precision,
        at=dict(recipe.at),
    )
    return workers.submit(steps.export, job)


class ArtifactBuilder:
    """Makes the artifacts of one run: exports, repairs, lays them out, starts their conversion.

    ``repairs`` are the rules that the request asks for; None: those that the artifact calls for. ``copies``:
    an artifact gets a directory of its own even if it lies alone in one.
    """

    def __init__(
        self,
        workers: Workers,
        request: Request,
        tell: Progress,
        *,
        copies: bool = True,
    ) -> None:
        self.workers = workers
        self.tell = tell
        self.mnnconvert = request.mnnconvert
        self.precision = request.precision
        self.static = request.static
        self.repairs = request.repairs
        self.targets = request.targets
        self.copies = copies
        self._count = 0
        self._forms: dict[str, int] = {}  # the opset at which each graph was made
        self._wrong: tuple[str, Exported] | None = None  # a node that MNN gets wrong, and where it stands

    def build(self, recipe: ExportRecipe, export: Future[Reply[Exported]]) -> Made | NotMade:
        """Wait for the export, repair what always is, start the conversion."""
        self._count += 1
        at = "".join(f", {name}={size}" for name, size in recipe.at)
        self.tell(f"attempt {self._count}: {recipe.method}{_at_opset(recipe)}{at}")
        try:
            exported = export.result().value
        except StepFailed as failure:
            return NotMade(recipe, describe(failure))
        if recipe.searches and (reason := self._nothing_new(exported)):
            return NotMade(recipe, reason, refused_opsets=tuple(exported.refused_opsets))
        if exported.form:
            self._forms.setdefault(exported.form, exported.opset)
        rules = always_rules() if self.repairs is None else list(self.repairs)
        return self._made(recipe, exported, rules, tuple(exported.refused_opsets))

    def blame(self, label: str, exported: Exported) -> None:
        """Note that MNN gets the node *label* of *exported* wrong whatever is around it.

        An export at another opset that has the same node is not verified.
        """
        self._wrong = (label, exported)

    def _nothing_new(self, exported: Exported) -> str:
        """Why an export at another opset ends as one before it; empty if it may not."""
        if exported.form in self._forms:
            return f"the same nodes as at opset {self._forms[exported.form]}"
        if self._wrong is None:
            return ""
        label, other = self._wrong
        if not (ARTIFACTS[exported.format].by_rules and ARTIFACTS[other.format].by_rules):
            return ""
        try:
            job = SameNodeJob(label, other.files[0].path, exported.files[0].path)
            same = self.workers.run(SAME_NODE, job).same
        except StepFailed:
            return ""
        return f"its {label}, which MNN gets wrong, is the one of opset {other.opset}" if same else ""

    def rebuild(self, recipe: ExportRecipe, original: Exported) -> Made | NotMade | None:
        """*original* with every rule that answers what it has; None if the user chose the rules."""
        if self.repairs is not None:
            return None
        self.tell("repairing the nodes that MNN does not take")
        return self._made(recipe, original, all_rules(), ())

    def rebuild_for_low(self, result: AttemptResult, cases: Sequence[CaseFile]) -> Made | NotMade | None:
        """The artifact of *result* with the rules for precision ``low`` too.

        Those that need to know how large its values get are told so from a run on *cases*. None if the user
        chose the rules, or none of them is for anything that it has.
        """
        assert result.artifact is not None
        original = result.artifact.original
        if self.repairs is not None or not applicable(low_rules(), _operators(original)):
            return None
        self.tell("repairing what half precision does not hold")
        fired = [repair.rule for repair in result.artifact.repairs]
        magnitudes = self._measured(result.artifact, cases)
        rules = [*always_rules(), *fired, *low_rules()]
        return self._made(result.recipe, original, rules, (), magnitudes)

    def _measured(self, artifact: Artifact, cases: Sequence[CaseFile]) -> dict[str, Magnitude]:
        """How large the values of *artifact* get; empty if it can't be run so."""
        if not artifact.format.by_rules:
            return {}
        model, *beside = (file.path for file in artifact.exported.files)
        directory = str(self.workers.directory("measured"))
        job = MagnitudesJob(
            model=model, cases=list(cases[:MEASURED_CASES]), directory=directory, beside=beside
        )
        try:
            return self.workers.run(MAGNITUDES, job).values
        except StepFailed:
            return {}

    def _made(
        self,
        recipe: ExportRecipe,
        original: Exported,
        rules: list[str],
        refused: tuple[OpsetRefused, ...],
        magnitudes: dict[str, Magnitude] | None = None,
    ) -> Made | NotMade:
        by_rules = ARTIFACTS[original.format].by_rules
        if not by_rules or not applicable(rules, _operators(original)):
            rules = []  # else all of them: what one rule writes is for those after it
        exported = original
        applied: tuple[AppliedRule, ...] = ()
        if rules:
            try:
                repaired = self._repaired(original, rules, magnitudes or {})
            except StepFailed as failure:
                reason = f"the rules could not be applied: {describe(failure)}"
                checks = (*original.checks, unanswered(catalog.REPAIRS, failure, reason))
                return NotMade(recipe, why_not(checks), original, checks, refused)
            applied = tuple(repaired.fired)
            if repaired.files:
                exported = msgspec.structs.replace(original, files=repaired.files)
        artifact = Artifact(exported, original, self.stage(exported), applied)
        self.tell(f"running the artifact in {artifact.format.runtime}, converting it to MNN")
        return Made(recipe, artifact, self.convert(artifact), refused)

    def _repaired(self, original: Exported, rules: list[str], magnitudes: dict[str, Magnitude]) -> Repaired:
        """*original* with *rules* applied.

        Raises:
            StepFailed: the step failed.
        """
        more = set(rules) - set(always_rules())
        job = RepairJob(
            model=original.files[0].path,
            directory=str(self.workers.directory("repair")),
            rules=rules,
            supported=listed_operators(self.workers, self.mnnconvert) if more else None,
            magnitudes=magnitudes,
        )
        return self.workers.run(REPAIR, job)

    def stage(self, exported: Exported) -> Path:
        """A directory that holds the artifact's files and nothing else."""
        if not self.copies:
            directory = Path(exported.files[0].path).parent
            names = {Path(file.path).name for file in exported.files}
            if {path.name for path in directory.iterdir()} == names:
                return directory
        directory = self.workers.directory("artifact")
        # onnx and onnx-ir refuse data files that have two names.
        place = shutil.copyfile if len(exported.files) > 1 else os.link
        for file in exported.files:
            place(file.path, directory / Path(file.path).name)
        return directory

    def convert(self, artifact: Artifact, part: str = "") -> Future[Reply[Converted]]:
        """Convert *artifact*, or the *part* of it in the file of that path."""
        job = ConvertJob(
            model=part or artifact.model,
            frontend=artifact.format.frontend,
            uuid_seed=_seed(artifact.exported.files),
            directory=str(self.workers.directory("convert")),
            extra_model="" if part else artifact.second_file,
            converter=self.mnnconvert,
            timeout=self.workers.limits.timeout,
            fp16=self.precision.fp16,
            weight_bits=self.precision.weight_bits,
            static=self.static,
        )
        return self.workers.submit(CONVERT, job)


def _operators(exported: Exported) -> frozenset[str]:
    return operators_in(Path(exported.files[0].path))


def _at_opset(recipe: ExportRecipe) -> str:
    if not recipe.opset:
        return ""
    return f" at opset {recipe.opset}" if recipe.searches else f" from opset {recipe.opset}"


def _seed(files: list[FileRef]) -> str:
    """Return the seed of the converted model's id: the artifact's hash, or that of all its files' hashes."""
    if len(files) == 1:
        return files[0].sha256
    return hashlib.sha256("".join(f.sha256 for f in files).encode()).hexdigest()
