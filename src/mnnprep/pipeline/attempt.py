"""One attempt, from export to verdict."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from concurrent.futures import Future
from pathlib import Path

import msgspec

from mnnprep.core.compare import Tolerance
from mnnprep.core.evidence import Check, Status, Verdict, failed, not_run, passed, verdict
from mnnprep.core.messages import CoverageJob, Exported, ExportJob, Ran, RunJob, Source, Survey, Wants, WeightsJob
from mnnprep.core.metrics import Metric
from mnnprep.core.request import Precision
from mnnprep.formats.onnx.coverage import CONTROL_FLOW
from mnnprep.formats.onnx.net import NO_KERNEL
from mnnprep.formats.onnx.scan import operators_in
from mnnprep.formats.plans import ARTIFACTS, ArtifactFormat, Attempt, Plan
from mnnprep.isolate.host import Reply, StepFailed
from mnnprep.mnn.torch_frontend import registered_check
from mnnprep.pipeline.metrics import metric_checks
from mnnprep.pipeline.mnn_side import MnnSide
from mnnprep.pipeline.tried import Tried, describe, least_sqnr, why_not
from mnnprep.pipeline.workers import Workers, listed_operators
from mnnprep.proof.judge import compared, dimension_checks, repeated
from mnnprep.rules.steps import Repaired, RepairJob
from mnnprep.rules.table import all_rules, always_rules, applicable

REPAIR = "mnnprep.rules.steps:repair"
COVERAGE = "mnnprep.formats.onnx.coverage:coverage"
RULES_PRELOAD = ("numpy", "onnx_ir")
Tell = Callable[[str], None]


def start_export(workers: Workers, plan: Plan, source: Source, wants: Wants, attempt: Attempt, tflite_precision: str = "") -> Future[Reply[Exported]]:
    directory = str(workers.directory("export"))
    job = ExportJob(source=source, wants=wants, method=attempt.method, opset=attempt.opset, directory=directory, tflite_precision=tflite_precision)
    return workers.submit(plan.preload, plan.export, job, Exported)


class Judge:
    """Judges attempts against one survey."""

    def __init__(
        self,
        workers: Workers,
        survey: Survey,
        source: Source,
        *,
        private: list[str],
        mnnconvert: str,
        tell: Tell,
        precision: Precision | None = None,
        static: bool = False,
        metrics: tuple[Metric, ...] = (),
        repairs: tuple[str, ...] | None = None,
    ) -> None:
        self.workers = workers
        self.survey = survey
        self.source = source
        self.private = private
        self.tell = tell
        self.precision = precision or Precision()
        self.metrics = metrics
        self.repairs = repairs
        self.forms: dict[str, int] = {}  # the opset at which each graph was judged
        self.mnn = MnnSide(workers, survey, mnnconvert=mnnconvert, precision=self.precision, static=static, tell=tell)

    def judge(self, attempt: Attempt, export: Future[Reply[Exported]], *, weights_in_file: bool) -> Tried:
        """Wait for the export, then run, convert and compare what it made."""
        tried = Tried(attempt)
        try:
            tried.exported = export.result().value
        except StepFailed as failure:
            tried.reason = describe(failure)
            return tried
        tried.refused_opsets = tried.exported.refused_opsets
        form, same = tried.exported.form, self.forms.get(tried.exported.form)
        if attempt.searches and same is not None:
            tried.reason = f"the same nodes as at opset {same}"
            tried.exported = None
            return tried
        if form:
            self.forms.setdefault(form, tried.exported.opset)
        return self._judge_made(tried, tried.exported, always_rules() if self.repairs is None else list(self.repairs), weights_in_file)

    def repair(self, tried: Tried, *, weights_in_file: bool) -> Tried | None:
        """*tried* once more with every rule that answers what it has; None when there is nothing to repair."""
        assert tried.exported is not None
        if self.repairs is not None:
            return None
        self.tell("repairing what MNN does not take")
        again = self._judge_made(Tried(tried.attempt, original=tried.original), tried.original or tried.exported, all_rules(), weights_in_file)
        return again if [f.rule for f in again.repairs] != [f.rule for f in tried.repairs] else None

    def _judge_made(self, tried: Tried, made: Exported, rules: list[str], weights_in_file: bool) -> Tried:
        """Repair what was *made* by *rules*, then prove the outcome."""
        tried.original, tried.exported = made, made
        tried.tolerance = Tolerance(noise=self.survey.noise, sqnr_db=made.sqnr_db)
        tried.mnn_tolerance = Tolerance(noise=self.survey.noise, sqnr_db=least_sqnr(made, self.precision))
        tried.checks = [*self.survey.checks, *made.checks]
        rules = applicable(rules, operators_in(Path(made.files[0].path))) if made.format == "onnx" else []
        if rules and not self._apply(tried, made, rules):
            return tried
        tried.directory = self._stage(tried.exported)
        if tried.attempt.traces:
            tried.checks += self._branches(made.decided)
        if made.operators:
            tried.checks.append(registered_check(made.operators))
        self._prove(tried, weights_in_file)
        dims = [d.name for d in self.survey.signature.dims]
        tried.verdict = verdict(tried.checks, dims)
        if tried.verdict is not Verdict.PROVEN:
            tried.reason = why_not(tried.checks)
        return tried

    def _apply(self, tried: Tried, made: Exported, rules: list[str]) -> bool:
        """Apply *rules*; False (with the reason in *tried*) when that failed."""
        supported = listed_operators(self.workers, self.mnn.mnnconvert) if set(rules) - set(always_rules()) else None
        job = RepairJob(model=made.files[0].path, directory=str(self.workers.directory("repair")), rules=rules, supported=supported)
        try:
            repaired = self.workers.run(RULES_PRELOAD, REPAIR, job, Repaired)
        except StepFailed as failure:
            tried.checks.append(failed("repairs", f"the rules could not be applied: {describe(failure)}"))
            tried.reason = why_not(tried.checks)
            return False
        tried.repairs = repaired.fired
        if repaired.files:
            tried.exported = msgspec.structs.replace(made, files=repaired.files)
        return True

    def _stage(self, exported: Exported) -> Path:
        """A directory that holds the artifact's files and nothing else."""
        directory = self.workers.directory("artifact")
        place = shutil.copyfile if len(exported.files) > 1 else os.link  # onnx and onnx-ir refuse data files that have two names
        for ref in exported.files:
            place(ref.path, directory / Path(ref.path).name)
        return directory

    def _branches(self, decided: list[str]) -> list[Check]:
        """A decision on data that the trace froze, and that no input tried took the other way."""
        places = [place for place in self.survey.one_sided if place in decided]
        if not places:
            return []
        return [
            failed(
                "branches",
                f"a traced artifact keeps what a value decided at {'; '.join(places[:5])}, and every input tried decided alike; "
                "give inputs that decide otherwise with --samples, or use --method onnx-script or script",
                subject=places[0],
            )
        ]

    def _prove(self, tried: Tried, weights_in_file: bool) -> None:
        assert tried.exported is not None and tried.directory is not None
        kind, model = tried.kind, tried.model
        self.tell(f"running the artifact in {kind.runtime}, converting it to MNN")
        converting = self.mnn.convert(tried)  # takes longest: one step beside it at a time
        running = self._start_run(kind, model)
        artifact = self._artifact_checks(tried, running, kind.runtime)
        if tried.repairs and tried.original is not None:
            before = self._start_run(kind, str(self._stage(tried.original) / Path(tried.original.files[0].path).name))
            tried.checks.append(self._repairs_check(tried, before, running))
        try:
            tried.checks.append(self._start_weighing(kind, model, weights_in_file).result().value)
        except StepFailed as failure:
            tried.checks.append(not_run("weights", describe(failure)))
        if tried.exported.format == "onnx" and operators_in(Path(model)) & CONTROL_FLOW:
            tried.checks.append(self._coverage(model))
        mnn = self.mnn.checks(tried, converting)
        if mnn is not None and mnn.status is Status.PASSED and self.survey.signature.dims:
            tried.checks.append(self.mnn.session(tried))
        runs = {"artifact": tried.artifact_ran, "MNN": tried.ran}
        tried.checks += metric_checks(self.workers, self.metrics, self.survey.cases, runs, self.survey.checks)
        checks, tried.proven_sizes = dimension_checks(self.survey, {"the artifact": artifact, "MNN": mnn})
        tried.checks += checks

    def _start_run(self, kind: ArtifactFormat, model: str) -> Future[Reply[Ran]]:
        job = RunJob(
            model=model, cases=self.survey.cases, signature=self.survey.signature, directory=str(self.workers.directory("run")), forbid=self.private
        )
        return self.workers.submit(kind.preload, kind.run, job, Ran)

    def _start_weighing(self, kind: ArtifactFormat, model: str, weights_in_file: bool) -> Future[Reply[Check]]:
        source = self.survey.weights.path if self.survey.weights else ""
        job = WeightsJob(model=model, source=source, source_model=self.source.path if weights_in_file else "")
        return self.workers.submit(kind.preload, kind.weights, job, Check)

    def _repairs_check(self, tried: Tried, before: Future[Reply[Ran]], after: Future[Reply[Ran]]) -> Check:
        """Whether the repaired artifact computes what it computed before."""
        rules = [f"{f.rule}: {len(f.nodes)} nodes" for f in tried.repairs]
        try:
            check = passed("repairs", numbers={"rules": rules})
            return repeated(
                check, before.result().value, after.result().value, tried.tolerance, between="the artifact before and after the repair, in runs"
            )
        except StepFailed as failure:
            return failed("repairs", f"the artifact before or after the repair does not run: {describe(failure)}", numbers={"rules": rules})

    def _artifact_checks(self, tried: Tried, running: Future[Reply[Ran]], runtime: str) -> Check | None:
        try:
            ran = running.result().value
        except StepFailed as failure:
            unable = failure.fate == "memory" or (failure.error is not None and failure.error.what == NO_KERNEL)
            verb, ask = ("can't be run", not_run) if unable else ("does not run", failed)
            tried.checks += [
                ask("self_contained", f"the artifact {verb} on its own in {runtime}: {describe(failure)}"),
                not_run("artifact_compare", "the artifact did not run"),
            ]
            return None
        tried.checks.append(passed("self_contained", numbers={"files": len(tried.exported.files) if tried.exported else 0}))
        tried.artifact_ran = ran
        check = compared(self.survey, "artifact_compare", ran, {}, tried.tolerance)
        tried.checks.append(check)
        return check

    def _coverage(self, model: str) -> Check:
        """Whether the cases run every branch that the inputs' values decide."""
        fixed = [s.name for s in self.survey.signature.inputs if s.range and s.range[0] == s.range[1]]
        job = CoverageJob(model=model, cases=self.survey.cases, directory=str(self.workers.directory("coverage")), fixed=fixed)
        try:
            return self.workers.run(ARTIFACTS["onnx"].preload, COVERAGE, job, Check)
        except StepFailed as failure:
            return not_run("coverage", describe(failure))
