"""Verifying what a recipe made: run it, run what MNN made of it, compare, conclude."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future
from pathlib import Path
from typing import Any, TypeVar

import msgspec

from mnnprep.attempt.builder import ArtifactBuilder
from mnnprep.attempt.known_at_low import known, start_knowing
from mnnprep.attempt.metrics import metric_checks
from mnnprep.attempt.mnn_verifier import MnnOutcome, MnnVerifier
from mnnprep.attempt.noise import learn_noise
from mnnprep.attempt.part_runs import joined
from mnnprep.attempt.results import AttemptResult, Made, NotMade, Runs, TargetProof, least_sqnr, unanswered
from mnnprep.attempt.search import Search, Tolerances
from mnnprep.attempt.target_verifier import Rounding
from mnnprep.comparison.dimensions import dimension_checks
from mnnprep.comparison.outputs import compared, repeated
from mnnprep.comparison.tolerance import Tolerance
from mnnprep.errors import Code
from mnnprep.evidence import catalog
from mnnprep.evidence.check import Check, Status
from mnnprep.evidence.verdict import PREPARE, verdict
from mnnprep.formats.backend import ArtifactFormat, SourceSteps
from mnnprep.formats.onnx.backend import COVERAGE
from mnnprep.formats.onnx.coverage import CONTROL_FLOW
from mnnprep.formats.registry import kind_of
from mnnprep.mnn.run import ACCURATE_HINTS
from mnnprep.mnn.torch_frontend import registered_check
from mnnprep.model.messages import (
    CaseFile,
    CoverageJob,
    Exported,
    InputSpecs,
    OwnWeightsJob,
    RunJob,
    RunResult,
    Source,
    Survey,
    WeightsJob,
)
from mnnprep.model.metrics import Metric
from mnnprep.repair.steps import AppliedRule
from mnnprep.workers.failure import StepFailed, describe
from mnnprep.workers.host import Reply

T = TypeVar("T")
Weigh = Callable[[ArtifactFormat, str], Future[Reply[Check]]]  # of an artifact's format and path


class Verifier:
    """Verifies what an :class:`ArtifactBuilder` made against one survey.

    *weigh* starts the comparison of an artifact's weights with the source's; by default the step for it of
    the source, or else of the artifact. *applied* are repairs of the graph from when it had no weights:
    nothing compares them.
    """

    def __init__(
        self,
        survey: Survey,
        source: Source,
        builder: ArtifactBuilder,
        *,
        steps: SourceSteps,
        private: list[str],
        wants: InputSpecs,
        metrics: tuple[Metric, ...] = (),
        weigh: Weigh | None = None,
        applied: tuple[AppliedRule, ...] = (),
    ) -> None:
        self._workers = builder.workers
        self._survey = survey
        self._source = source
        self._builder = builder
        self._steps = steps
        self._private = private
        self._metrics = metrics
        self._wants = wants
        self._weigh = weigh or self._start_weighing
        self._applied = applied
        self._mnn = MnnVerifier(survey, builder, self._learn)

    def verify(self, made: Made | NotMade) -> AttemptResult:
        """Run, convert and compare what was made, if anything was."""
        if isinstance(made, NotMade):
            return self._unverified(made)
        original = made.artifact.original
        evidence = [*original.checks]
        if made.recipe.traces:
            evidence += self._branches(original)
        if original.operators:
            evidence.append(registered_check(original.operators))
        knowing = start_knowing(self._workers, made.artifact)
        checks, sizes, ran, outcome, targets = self._proof(made)
        evidence = [*self._survey.checks, *evidence, *checks]
        dims = [d.name for d in self._survey.signature.dims]
        profile = PREPARE.with_dims(dims).with_targets(map(str, self._builder.targets))
        concluded = verdict(evidence, profile)
        return AttemptResult(
            made.recipe,
            made.artifact.exported,
            made.artifact,
            outcome.conversion,
            Runs(ran, outcome.ran),
            (*evidence, *not_compared(self._applied)),
            concluded,
            proven_sizes=sizes,
            refused_opsets=made.refused_opsets,
            repairs=(*self._applied, *made.artifact.repairs),
            targets=tuple(targets),
            known=known(knowing),
            survey=self._survey,
        )

    def repair(self, result: AttemptResult) -> AttemptResult | None:
        """*result* once more with every rule that answers what it has; None if there is nothing more."""
        assert result.artifact is not None
        made = self._builder.rebuild(result.recipe, result.artifact.original)
        if made is None:
            return None
        again = self.verify(made)
        return again if [r.rule for r in again.repairs] != [r.rule for r in result.repairs] else None

    def repair_for_low(self, result: AttemptResult) -> AttemptResult | None:
        """*result* once more with the rules for precision ``low``; None if none of them changes it."""
        made = self._builder.rebuild_for_low(result, self._survey.cases)
        if isinstance(made, Made) and len(made.artifact.repairs) == len(result.repairs) - len(self._applied):
            return None
        return self.verify(made) if made is not None else None

    def _unverified(self, made: NotMade) -> AttemptResult:
        checks = (*self._survey.checks, *made.checks) if made.exported else ()
        return AttemptResult(
            made.recipe,
            made.exported,
            checks=checks,
            unmade=made.reason,
            refused_opsets=made.refused_opsets,
        )

    def _learn(self, check: Check) -> bool:
        """Measure the noise of the cases that a failed *check* found wrong.

        Returns whether there is something new to judge them by.
        """
        return check.status is Status.FAILED and learn_noise(
            self._workers, self._steps, self._source, self._wants, self._survey, check
        )

    def _branches(self, original: Exported) -> list[Check]:
        """A decision on data that the trace froze, and that no input tried took the other way."""
        places = [place for place in self._survey.one_sided if place in original.decided]
        if not places:
            return []
        return [
            catalog.BRANCHES.failed(
                f"a traced artifact freezes the decisions on values at {'; '.join(places[:5])}, and every"
                f" input tried decided the same way; give inputs that decide otherwise with --samples, or"
                f" use --method"
                " onnx-script or script",
                subject=places[0],
            )
        ]

    def _tolerances(self, original: Exported) -> Tolerances:
        """Those of the artifact's comparison and of MNN's.

        Their noise is one dict, to which learn_noise adds: for both, and for what is recorded.
        """
        noise, steps = self._survey.noise, self._survey.steps
        least = least_sqnr(original, self._builder.precision)
        return Tolerances(
            artifact=Tolerance(noise=noise, sqnr_db=original.sqnr_db, steps=steps),
            mnn=Tolerance(noise=noise, sqnr_db=least, steps=steps),
        )

    def _proof(
        self, made: Made
    ) -> tuple[list[Check], dict[str, list[int]], RunResult | None, MnnOutcome, list[TargetProof]]:
        """Both sides of the proof beside each other: their checks, the sizes proven, the runs.

        One step of the artifact's runs at a time, MNN's as soon as it is converted, then those on targets.
        """
        artifact = made.artifact
        kind, model, original = artifact.format, artifact.model, artifact.original
        tolerances = self._tolerances(original)
        job = self._job(model)
        running = self._workers.submit(kind.run, job)
        before: Future[Reply[RunResult]] | None = None
        weigh_after: Future[Reply[RunResult]] = running
        if artifact.repairs:
            name = Path(original.files[0].path).name
            before = weigh_after = after(
                running,
                lambda: self._workers.submit(kind.run, self._job(str(self._builder.stage(original) / name))),
            )
        weighing = after(weigh_after, lambda: self._weigh(kind, model))
        outcome = self._mnn.verify(made, tolerances.artifact, tolerances.mnn)
        ran, compare, checks = self._artifact_checks(made, running, tolerances.artifact)
        if before is not None:
            checks.append(_repairs_check(artifact.repairs, before, running, tolerances.artifact))
        checks.append(weigh(weighing))
        if artifact.operators & CONTROL_FLOW:
            checks.append(self._coverage(model))
        if ran is not None and compare is not None and self._worth_a_search(outcome, compare, tolerances.mnn):
            ran, other, outcome = self._searched(made, ran, compare, outcome, tolerances)
            checks = [other if check is compare else check for check in checks]
            compare, tolerances = other, self._tolerances(original)
        checks += outcome.checks
        on_targets = self._mnn.start_targets(outcome)
        rounding = Rounding(self._workers, kind, job)
        mnn = outcome.compare
        if mnn is not None and mnn.status is Status.PASSED and self._survey.signature.dims:
            checks.append(self._mnn.session(outcome, tolerances.mnn))
        runs = {"artifact": ran, "MNN": outcome.ran}
        checks += metric_checks(self._workers, self._metrics, self._survey.cases, runs, self._survey.checks)
        sizes, proven = dimension_checks(self._survey, {"the artifact": compare, "MNN": mnn})
        targets = self._mnn.judge_targets(on_targets, outcome, tolerances.mnn, rounding)
        return [*checks, *sizes, *(proof.check for proof in targets)], proven, ran, outcome, targets

    def _worth_a_search(self, outcome: MnnOutcome, compare: Check, tolerance: Tolerance) -> bool:
        """Whether nothing stands against a proof, and outputs are judged number by number."""
        passed = outcome.compare is not None and compare.status is outcome.compare.status is Status.PASSED
        by_number = tolerance.sqnr_db is None and not tolerance.steps
        sound = all(c.status is Status.PASSED for c in self._survey.checks if c.required)
        return passed and by_number and sound and self._steps.replay is not None and not self._source.lean

    def _searched(
        self, made: Made, ran: RunResult, compare: Check, outcome: MnnOutcome, tolerances: Tolerances
    ) -> tuple[RunResult, Check, MnnOutcome]:
        """What passed so far, after a search for inputs on which it does not; one that is found is a case."""
        assert outcome.ran is not None
        self._builder.tell("searching inputs on which it may differ")
        kind, conversion = made.artifact.format, outcome.conversion

        def run_artifact(cases: list[CaseFile]) -> RunResult:
            job = msgspec.structs.replace(self._job(made.artifact.model), cases=cases)
            return self._workers.run(kind.run, job)

        search = Search(
            self._workers,
            self._steps,
            self._source,
            self._wants,
            run_artifact,
            lambda cases, hints: self._mnn.run(conversion, cases, hints),
        )
        looked = search.look(self._survey, made.artifact, outcome.ran.hints, tolerances, ran, outcome.ran)
        if looked.rough is not None:
            accurate = self._mnn.verify(made, tolerances.artifact, tolerances.mnn, ACCURATE_HINTS)
            if accurate.compare is None or accurate.compare.status is not Status.PASSED:
                return ran, compare, accurate
            assert accurate.ran is not None
            outcome = accurate.at_default(looked.rough)
            looked = search.look(self._survey, made.artifact, ACCURATE_HINTS, tolerances, ran, accurate.ran)
        if looked.case is not None:
            self._survey = looked.survey
            self._mnn = MnnVerifier(self._survey, self._builder, self._learn)
            tolerances = self._tolerances(made.artifact.original)
            ran = joined(ran, looked.artifact)
            compare = looked.named(
                compared(self._survey, catalog.ARTIFACT_COMPARE, ran, {}, tolerances.artifact)
            )
            outcome = outcome.on(looked, tolerances.mnn)
        return ran, compare, outcome.counting(looked.numbers)

    def _job(self, model: str) -> RunJob:
        return RunJob(
            model=model,
            cases=self._survey.cases,
            signature=self._survey.signature,
            directory=str(self._workers.directory("run")),
            forbid=self._private,
            trust=self._source.trust or kind_of(self._source.kind).judge is None,
        )

    def _start_weighing(self, kind: ArtifactFormat, model: str) -> Future[Reply[Check]]:
        if self._steps.weights:
            own = OwnWeightsJob(model=model, format=kind.name, source=self._source, cases=self._survey.cases)
            return self._workers.submit(self._steps.weights, own)
        source = self._survey.weights.path if self._survey.weights else ""
        source_model = self._source.path if self._steps.weights_in_file else ""
        job = WeightsJob(model=model, source=source, source_model=source_model, beside=self._source.beside)
        assert kind.weights is not None, f"nothing compares the weights of {kind.name}"
        return self._workers.submit(kind.weights, job)

    def _artifact_checks(
        self, made: Made, running: Future[Reply[RunResult]], tolerance: Tolerance
    ) -> tuple[RunResult | None, Check | None, list[Check]]:
        """The artifact's run and its comparison, None if it does not run; and all that the run says."""
        runtime = made.artifact.format.runtime
        try:
            ran = running.result().value
        except StepFailed as failure:
            no_kernel = failure.error is not None and failure.error.code is Code.NO_KERNEL
            verb = "can't be run" if failure.unable or no_kernel else "does not run"
            reason = f"the artifact {verb} on its own in {runtime}: {describe(failure)}"
            checks = [
                unanswered(catalog.SELF_CONTAINED, failure, reason, unable=no_kernel),
                catalog.ARTIFACT_COMPARE.not_run("the artifact did not run"),
            ]
            return None, None, checks
        check = compared(self._survey, catalog.ARTIFACT_COMPARE, ran, {}, tolerance)
        if self._learn(check):
            check = compared(self._survey, catalog.ARTIFACT_COMPARE, ran, {}, tolerance)
        files = len(made.artifact.exported.files)
        return ran, check, [catalog.SELF_CONTAINED.passed(numbers={"files": files}), check]

    def _coverage(self, model: str) -> Check:
        """Whether the cases run every branch that the inputs' values decide."""
        fixed = [s.name for s in self._survey.signature.inputs if s.range and s.range[0] == s.range[1]]
        job = CoverageJob(
            model=model,
            cases=self._survey.cases,
            directory=str(self._workers.directory("coverage")),
            fixed=fixed,
        )
        try:
            return self._workers.run(COVERAGE, job)
        except StepFailed as failure:
            return catalog.COVERAGE.not_run(describe(failure))


def not_compared(applied: tuple[AppliedRule, ...]) -> list[Check]:
    """That nothing compared the repairs *applied* to a graph without weights, if there are any."""
    why = "the artifact had no weights yet when it was repaired, so it did not run before"
    return [catalog.REPAIRS.not_run(why, required=False)] if applied else []


def _repairs_check(
    repairs: tuple[AppliedRule, ...],
    before: Future[Reply[RunResult]],
    after: Future[Reply[RunResult]],
    tolerance: Tolerance,
) -> Check:
    """Whether the repaired artifact computes what it computed before."""
    rules = [f"{repair.rule}: {len(repair.nodes)} nodes" for repair in repairs]
    try:
        before.result()
    except StepFailed as failure:
        why = f"the artifact did not run before its repair either: {describe(failure)}"
        return catalog.REPAIRS.not_run(why, required=False, numbers={"rules": rules})
    try:
        return repeated(
            catalog.REPAIRS.passed(numbers={"rules": rules}),
            before.result().value,
            after.result().value,
            tolerance,
            between="the artifact before and after the repair, in runs",
        )
    except StepFailed as failure:
        reason = f"the repaired artifact does not run, and the one before does: {describe(failure)}"
        return unanswered(catalog.REPAIRS, failure, reason, numbers={"rules": rules})


def weigh(weighing: Future[Reply[Check]]) -> Check:
    """The ``weights`` check, not run if its step did not end well."""
    try:
        return weighing.result().value
    except StepFailed as failure:
        return catalog.WEIGHTS.not_run(describe(failure))


def after(step: Future[Any], start: Callable[[], Future[T]]) -> Future[T]:
    """Return what *start* gives, called once *step* has ended, well or not."""
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
