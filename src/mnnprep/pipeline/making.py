"""Making an attempt's artifact: export it, repair it, start its conversion.

Nothing here needs the survey, which runs meanwhile.
"""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Callable
from concurrent.futures import Future
from pathlib import Path

import msgspec

from mnnprep.core.files import FileRef
from mnnprep.core.messages import Exported, ExportJob, Source, Wants
from mnnprep.core.request import Precision
from mnnprep.evidence import catalog
from mnnprep.formats.backend import ExportRecipe, SourceSteps
from mnnprep.formats.onnx.scan import operators_in
from mnnprep.isolate.host import Reply, StepFailed
from mnnprep.mnn.convert import CONVERT, Converted, ConvertJob
from mnnprep.pipeline.tried import Tried, describe, unanswered, why_not
from mnnprep.pipeline.workers import Workers, listed_operators
from mnnprep.rules.steps import REPAIR, RepairJob
from mnnprep.rules.table import all_rules, always_rules, applicable

Tell = Callable[[str], None]


def start_export(
    workers: Workers,
    steps: SourceSteps,
    source: Source,
    wants: Wants,
    attempt: ExportRecipe,
    tflite_precision: str = "",
) -> Future[Reply[Exported]]:
    """Start the export of *source* by one recipe, beside whatever else runs."""
    directory = str(workers.directory("export"))
    job = ExportJob(
        source=source,
        wants=wants,
        method=attempt.method,
        opset=attempt.opset,
        directory=directory,
        tflite_precision=tflite_precision,
    )
    return workers.submit(steps.export, job)


class Maker:
    """Makes the artifacts of one run.

    ``repairs`` are the rules asked for; None: those that the artifact calls for.
    """

    def __init__(
        self,
        workers: Workers,
        *,
        mnnconvert: str,
        tell: Tell,
        precision: Precision,
        static: bool = False,
        repairs: tuple[str, ...] | None = None,
    ) -> None:
        self.workers = workers
        self.mnnconvert = mnnconvert
        self.tell = tell
        self.precision = precision
        self.static = static
        self.repairs = repairs
        self._count = 0
        self._forms: dict[str, int] = {}  # the opset at which each graph was made

    def make(self, attempt: ExportRecipe, export: Future[Reply[Exported]]) -> Tried:
        """Wait for the export, repair what always is, start the conversion.

        Where that ends before, ``directory`` is None and ``reason`` says why.
        """
        self._count += 1
        at = (
            ""
            if not attempt.opset
            else f" at opset {attempt.opset}"
            if attempt.searches
            else f" from opset {attempt.opset}"
        )
        self.tell(f"attempt {self._count}: {attempt.method}{at}")
        tried = Tried(attempt)
        try:
            exported = export.result().value
        except StepFailed as failure:
            tried.reason = describe(failure)
            return tried
        tried.refused_opsets = exported.refused_opsets
        if attempt.searches and exported.form in self._forms:
            tried.reason = f"the same nodes as at opset {self._forms[exported.form]}"
            return tried
        if exported.form:
            self._forms.setdefault(exported.form, exported.opset)
        return self._made(tried, exported, always_rules() if self.repairs is None else list(self.repairs))

    def remake(self, tried: Tried) -> Tried | None:
        """*tried* once more with every rule that answers what it has; None when the user chose the rules."""
        assert tried.original is not None
        if self.repairs is not None:
            return None
        self.tell("repairing what MNN does not take")
        return self._made(Tried(tried.attempt), tried.original, all_rules())

    def _made(self, tried: Tried, made: Exported, rules: list[str]) -> Tried:
        tried.original, tried.exported, tried.checks = made, made, [*made.checks]
        rules = applicable(rules, operators_in(Path(made.files[0].path))) if tried.kind.by_rules else []
        if rules and not self._apply(tried, made, rules):
            return tried
        tried.directory = self.stage(tried.exported)
        self.tell(f"running the artifact in {tried.kind.runtime}, converting it to MNN")
        tried.converting = self.convert(tried)
        return tried

    def _apply(self, tried: Tried, made: Exported, rules: list[str]) -> bool:
        """Apply *rules*; False (with the reason in *tried*) when that failed."""
        supported = (
            listed_operators(self.workers, self.mnnconvert) if set(rules) - set(always_rules()) else None
        )
        job = RepairJob(
            model=made.files[0].path,
            directory=str(self.workers.directory("repair")),
            rules=rules,
            supported=supported,
        )
        try:
            repaired = self.workers.run(REPAIR, job)
        except StepFailed as failure:
            tried.checks.append(
                unanswered(catalog.REPAIRS, failure, f"the rules could not be applied: {describe(failure)}")
            )
            tried.reason = why_not(tried.checks)
            return False
        tried.repairs = repaired.fired
        if repaired.files:
            tried.exported = msgspec.structs.replace(made, files=repaired.files)
        return True

    def stage(self, exported: Exported) -> Path:
        """A directory that holds the artifact's files and nothing else."""
        directory = self.workers.directory("artifact")
        place = (
            shutil.copyfile if len(exported.files) > 1 else os.link
        )  # onnx and onnx-ir refuse data files that have two names
        for ref in exported.files:
            place(ref.path, directory / Path(ref.path).name)
        return directory

    def convert(self, tried: Tried, model: str = "") -> Future[Reply[Converted]]:
        """Convert the artifact, or a part of it."""
        assert tried.exported is not None
        job = ConvertJob(
            model=model or tried.model,
            frontend=tried.kind.frontend,
            uuid_seed=_seed(tried.exported.files),
            directory=str(self.workers.directory("convert")),
            extra_model="" if model else tried.second_file,
            converter=self.mnnconvert,
            timeout=self.workers.limits.timeout,
            fp16=self.precision.fp16,
            weight_bits=self.precision.weight_bits,
            static=self.static,
        )
        return self.workers.submit(CONVERT, job)


def _seed(files: list[FileRef]) -> str:
    """What the converted model's id is made from: the artifact's hash, or that of all its files' hashes."""
    if len(files) == 1:
        return files[0].sha256
    return hashlib.sha256("".join(f.sha256 for f in files).encode()).hexdigest()
