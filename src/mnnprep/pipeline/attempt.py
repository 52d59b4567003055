"""Judging what an attempt made: run it, run what MNN made of it, compare, conclude."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future
from pathlib import Path
from typing import Any, TypeVar

from mnnprep.core.compare import Tolerance
from mnnprep.core.messages import CoverageJob, OwnWeightsJob, Ran, RunJob, Source, Survey, Wants, WeightsJob
from mnnprep.core.metrics import Metric
from mnnprep.errors import Code
from mnnprep.evidence import catalog
from mnnprep.evidence.check import Check, Status
from mnnprep.evidence.verdict import PREPARE, Verdict, verdict
from mnnprep.formats.backend import ArtifactFormat, SourceSteps
from mnnprep.formats.onnx.backend import COVERAGE
from mnnprep.formats.onnx.coverage import CONTROL_FLOW
from mnnprep.formats.onnx.scan import operators_in
from mnnprep.formats.registry import kind_of
from mnnprep.isolate.host import Reply, StepFailed
from mnnprep.mnn.convert import Converted
from mnnprep.mnn.torch_frontend import registered_check
from mnnprep.pipeline.making import Maker
from mnnprep.pipeline.metrics import metric_checks
from mnnprep.pipeline.mnn_side import MnnSide
from mnnprep.pipeline.noise import learn_noise
from mnnprep.pipeline.tried import Tried, describe, least_sqnr, unanswered, why_not
from mnnprep.proof.judge import compared, dimension_checks, repeated

T = TypeVar("T")


class Judge:
    """Judges what a :class:`Maker` made against one survey."""

    def __init__(
        self,
        survey: Survey,
        source: Source,
        maker: Maker,
        *,
        steps: SourceSteps,
        private: list[str],
        wants: Wants,
        metrics: tuple[Metric, ...] = (),
    ) -> None:
        self.workers = maker.workers
        self.survey = survey
        self.source = source
        self.maker = maker
        self.steps = steps
        self.private = private
        self.metrics = metrics
        self.wants = wants
        self.mnn = MnnSide(survey, maker, self._learn)

    def _learn(self, check: Check) -> bool:
        """Measure the noise of the cases that a failed *check* found wrong; whether there is something new to
        judge them by.
        """
        failed_ = check.status is Status.FAILED
        return failed_ and learn_noise(self.workers, self.steps, self.source, self.wants, self.survey, check)

    def judge(self, tried: Tried) -> Tried:
        """Run, convert and compare what was made, if anything was."""
        made = tried.original
        if made is None:
            return tried
        tried.tolerance = Tolerance(noise=self.survey.noise, sqnr_db=made.sqnr_db)
        tried.mnn_tolerance = Tolerance(
            noise=self.survey.noise, sqnr_db=least_sqnr(made, self.maker.precision)
        )
        tried.checks = [*self.survey.checks, *tried.checks]
        if tried.converting is None:
            return tried
        if tried.attempt.traces:
            tried.checks += self._branches(made.decided)
        if made.operators:
            tried.checks.append(registered_check(made.operators))
        self._prove(tried, tried.converting)
        dims = [d.name for d in self.survey.signature.dims]
        tried.verdict = verdict(tried.checks, PREPARE.with_dims(dims))
        if tried.verdict is not Verdict.PROVEN:
            tried.reason = why_not(tried.checks)
        return tried

    def repair(self, tried: Tried) -> Tried | None:
        """*tried* once more with every rule that answers what it has; None when there is nothing to
        repair.
        """
        again = self.maker.remake(tried)
        if again is None:
            return None
        self.judge(again)
        return again if [f.rule for f in again.repairs] != [f.rule for f in tried.repairs] else None

    def _branches(self, decided: list[str]) -> list[Check]:
        """A decision on data that the trace froze, and that no input tried took the other way."""
        places = [place for place in self.survey.one_sided if place in decided]
        if not places:
            return []
        return [
            catalog.BRANCHES.failed(
                f"a traced artifact keeps what a value decided at {'; '.join(places[:5])}, and every input"
                " tried decided alike; give inputs that decide otherwise with --samples, or use --method"
                " onnx-script or script",
                subject=places[0],
            )
        ]

    def _prove(self, tried: Tried, converting: Future[Reply[Converted]]) -> None:
        """Both sides of the proof beside each other: one step of the artifact's at a time, MNN's as soon as
        it is converted.
        """
        kind, model, original = tried.kind, tried.model, tried.original
        running = self._start_run(kind, model)
        before: Future[Reply[Ran]] | None = None
        weigh_after: Future[Reply[Ran]] = running
        if tried.repairs and original is not None:
            before = weigh_after = after(
                running,
                lambda: self._start_run(
                    kind, str(self.maker.stage(original) / Path(original.files[0].path).name)
                ),
            )
        weighing = after(weigh_after, lambda: self._start_weighing(kind, model))
        place = len(tried.checks)
        mnn = self.mnn.checks(tried, converting)
        artifact, checks = self._artifact_checks(tried, running, kind.runtime)
        if before is not None:
            checks.append(self._repairs_check(tried, before, running))
        checks.append(weigh(weighing))
        if kind.by_rules and operators_in(Path(model)) & CONTROL_FLOW:
            checks.append(self._coverage(model))
        tried.checks[place:place] = checks
        if mnn is not None and mnn.status is Status.PASSED and self.survey.signature.dims:
            tried.checks.append(self.mnn.session(tried))
        runs = {"artifact": tried.artifact_ran, "MNN": tried.ran}
        tried.checks += metric_checks(self.workers, self.metrics, self.survey.cases, runs, self.survey.checks)
        sizes, tried.proven_sizes = dimension_checks(self.survey, {"the artifact": artifact, "MNN": mnn})
        tried.checks += sizes

    def _start_run(self, kind: ArtifactFormat, model: str) -> Future[Reply[Ran]]:
        job = RunJob(
            model=model,
            cases=self.survey.cases,
            signature=self.survey.signature,
            directory=str(self.workers.directory("run")),
            forbid=self.private,
            trust=self.source.trust or kind_of(self.source.kind).judge is None,
        )
        return self.workers.submit(kind.run, job)

    def _start_weighing(self, kind: ArtifactFormat, model: str) -> Future[Reply[Check]]:
        if self.steps.weights:
            own = OwnWeightsJob(model=model, format=kind.name, source=self.source, cases=self.survey.cases)
            return self.workers.submit(self.steps.weights, own)
        source = self.survey.weights.path if self.survey.weights else ""
        source_model = self.source.path if self.steps.weights_in_file else ""
        job = WeightsJob(model=model, source=source, source_model=source_model, beside=self.source.beside)
        assert kind.weights is not None, f"nothing compares the weights of {kind.name}"
        return self.workers.submit(kind.weights, job)

    def _repairs_check(self, tried: Tried, before: Future[Reply[Ran]], after: Future[Reply[Ran]]) -> Check:
        """Whether the repaired artifact computes what it computed before."""
        rules = [f"{f.rule}: {len(f.nodes)} nodes" for f in tried.repairs]
        try:
            check = catalog.REPAIRS.passed(numbers={"rules": rules})
            return repeated(
                check,
                before.result().value,
                after.result().value,
                tried.tolerance,
                between="the artifact before and after the repair, in runs",
            )
        except StepFailed as failure:
            reason = f"the artifact before or after the repair does not run: {describe(failure)}"
            return unanswered(catalog.REPAIRS, failure, reason, numbers={"rules": rules})

    def _artifact_checks(
        self, tried: Tried, running: Future[Reply[Ran]], runtime: str
    ) -> tuple[Check | None, list[Check]]:
        """The comparison of the artifact, None where it does not run; and all that its run says."""
        try:
            ran = running.result().value
        except StepFailed as failure:
            no_kernel = failure.error is not None and failure.error.code is Code.NO_KERNEL
            verb = "can't be run" if failure.unable or no_kernel else "does not run"
            reason = f"the artifact {verb} on its own in {runtime}: {describe(failure)}"
            return None, [
                unanswered(catalog.SELF_CONTAINED, failure, reason, unable=no_kernel),
                catalog.ARTIFACT_COMPARE.not_run("the artifact did not run"),
            ]
        tried.artifact_ran = ran
        check = compared(self.survey, catalog.ARTIFACT_COMPARE, ran, {}, tried.tolerance)
        if self._learn(check):
            check = compared(self.survey, catalog.ARTIFACT_COMPARE, ran, {}, tried.tolerance)
        return check, [
            catalog.SELF_CONTAINED.passed(
                numbers={"files": len(tried.exported.files) if tried.exported else 0}
            ),
            check,
        ]

    def _coverage(self, model: str) -> Check:
        """Whether the cases run every branch that the inputs' values decide."""
        fixed = [s.name for s in self.survey.signature.inputs if s.range and s.range[0] == s.range[1]]
        job = CoverageJob(
            model=model,
            cases=self.survey.cases,
            directory=str(self.workers.directory("coverage")),
            fixed=fixed,
        )
        try:
            return self.workers.run(COVERAGE, job)
        except StepFailed as failure:
            return catalog.COVERAGE.not_run(describe(failure))


def weigh(weighing: Future[Reply[Check]]) -> Check:
    """The ``weights`` check, not run where its step did not end well."""
    try:
        return weighing.result().value
    except StepFailed as failure:
        return catalog.WEIGHTS.not_run(describe(failure))


def after(step: Future[Any], start: Callable[[], Future[T]]) -> Future[T]:
    """What *start* gives, called once *step* has ended, well or not."""
    chained: Future[T] = Future()

    def copy(started: Future[T]) -> None:
        error = started.exception()
        chained.set_result(started.result()) if error is None else chained.set_exception(error)

    def begin(_: Future[Any]) -> None:
        try:
            start().add_done_callback(copy)
        except Exception as error:
            chained.set_exception(error)

    step.add_done_callback(begin)
    return chained
