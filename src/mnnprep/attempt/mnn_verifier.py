"""The half of a verification that is MNN's: how the conversion went, run what came of it, compare."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from concurrent.futures import Future
from dataclasses import dataclass, replace

import msgspec

from mnnprep.attempt.builder import ArtifactBuilder
from mnnprep.attempt.part_runs import joined
from mnnprep.attempt.refused_nodes import refused_nodes
from mnnprep.attempt.results import Artifact, Conversion, Made, TargetProof, unanswered
from mnnprep.attempt.search import Looked
from mnnprep.attempt.sizes_between import cases_between
from mnnprep.attempt.target_verifier import Rounding, judged, without_model
from mnnprep.comparison.outputs import compare_run, compared, confirmed, odd_one_out
from mnnprep.comparison.precision_cost import precision_cost
from mnnprep.comparison.tolerance import Tolerance
from mnnprep.evidence import catalog
from mnnprep.evidence.check import Check, Figure, Status
from mnnprep.mnn.convert import Converted
from mnnprep.mnn.names import match_names
from mnnprep.mnn.run import NARROWED_OUTPUTS, RUN, MnnRunJob, MnnRunResult
from mnnprep.model.messages import CaseFile, Survey
from mnnprep.targets.run import TargetRun, start
from mnnprep.text import listed
from mnnprep.workers.failure import StepFailed, describe
from mnnprep.workers.host import Reply


@dataclass(frozen=True)
class MnnOutcome:
    """MNN's half: the ``conversion``, the run and all ``checks`` of both, ``compare`` among them.

    ``ran`` and ``compare`` are None if the converted model could not be run.
    """

    conversion: Conversion
    checks: tuple[Check, ...]
    ran: MnnRunResult | None = None
    compare: Check | None = None

    def _with(self, ran: MnnRunResult, compare: Check) -> MnnOutcome:
        checks = tuple(compare if check is self.compare else check for check in self.checks)
        return replace(self, checks=checks, ran=ran, compare=compare)

    def on(self, looked: Looked, tolerance: Tolerance) -> MnnOutcome:
        """The same on the case that a search found, too."""
        assert self.ran is not None
        ran = joined(self.ran, looked.mnn)
        check = compared(looked.survey, catalog.MNN_COMPARE, ran, NARROWED_OUTPUTS, tolerance)
        return self._with(ran, looked.named(check))

    def at_default(self, excess: float) -> MnnOutcome:
        """The same in accurate settings, where the defaults were *excess* times the tolerance off."""
        assert self.ran is not None
        ran = msgspec.structs.replace(self.ran, default_excess=excess)
        return replace(self, ran=ran).counting({"excess_at_default_settings": excess})

    def counting(self, numbers: Mapping[str, Figure]) -> MnnOutcome:
        """The same with *numbers* in the comparison's check."""
        assert self.ran is not None
        assert self.compare is not None
        compare = msgspec.structs.replace(self.compare, numbers={**self.compare.numbers, **numbers})
        return self._with(self.ran, compare)


class MnnVerifier:
    """Runs converted artifacts on one survey's cases."""

    def __init__(self, survey: Survey, builder: ArtifactBuilder, learn: Callable[[Check], bool]) -> None:
        self._learn = learn  # the noise of what a check found wrong
        self._workers = builder.workers
        self._survey = survey
        self._builder = builder
        self._precision = builder.precision

    def verify(
        self,
        made: Made,
        artifact_tolerance: Tolerance,
        tolerance: Tolerance,
        hints: dict[str, int] | None = None,
    ) -> MnnOutcome:
        """Wait for the conversion of *made*, run the model, compare within *tolerance*.

        With *hints* it is run in these settings, else in MNN's defaults as long as they are accurate enough.
        """
        conversion = self._conversion(made.artifact, made.converting)
        if conversion.model is None:
            not_run = catalog.MNN_COMPARE.not_run("there is no converted model")
            return MnnOutcome(conversion, (conversion.check, not_run))
        if conversion.mismatch:
            failed = catalog.MNN_COMPARE.failed(conversion.mismatch)
            return MnnOutcome(conversion, (conversion.check, failed))
        self._builder.tell("running it in MNN, twice")
        try:
            ran, check = self._run_twice(conversion, tolerance, made.artifact, hints or {})
        except StepFailed as failure:
            crashed = unanswered(catalog.MNN_COMPARE, failure, f"MNN's runtime {describe(failure)}")
            return MnnOutcome(conversion, (conversion.check, crashed))
        checks = [conversion.check, check]
        if self._precision.reduced:
            size = conversion.model.size
            checks.append(precision_cost(self._survey.cases, ran, check, self._precision, size))
        if check.status is Status.FAILED and self._survey.third_opinion:
            checks.append(
                odd_one_out(self._survey.third_opinion, ran, self._survey.checks, artifact_tolerance)
            )
        return MnnOutcome(conversion, tuple(checks), ran, check)

    def run(self, conversion: Conversion, cases: list[CaseFile], hints: dict[str, int]) -> MnnRunResult:
        """Run a converted model on further *cases* in the settings *hints*.

        Raises:
            StepFailed: the process crashed.
        """
        return self._start(conversion, cases, fresh=False, hints=hints).result().value

    def session(self, outcome: MnnOutcome, tolerance: Tolerance) -> Check:
        """Whether a Session that is resized from case to case gives the same as the Module API did.

        The check is not required, for an app has the choice.
        """
        assert outcome.ran is not None
        running = self._start(
            outcome.conversion, self._survey.cases, fresh=False, hints=outcome.ran.hints, session=True
        )
        remedy = "use MNN's Module API, which is what was proven"
        try:
            ran = running.result().value
        except StepFailed as failure:
            reason = f"a Session that is resized {describe(failure)}; {remedy}"
            return unanswered(catalog.MNN_SESSION, failure, reason)
        check = compared(self._survey, catalog.MNN_SESSION, ran, NARROWED_OUTPUTS, tolerance)
        reason = f"a Session that is resized: {check.reason}; {remedy}" if check.reason else ""
        return msgspec.structs.replace(check, reason=reason)

    def start_targets(self, outcome: MnnOutcome) -> list[TargetRun]:
        """Start the model on every target that was asked for, with the hints that it needed here.

        None is started if it is not right here.
        """
        if outcome.ran is None or outcome.compare is None or outcome.compare.status is not Status.PASSED:
            return []
        targets = self._builder.targets
        if targets:
            self._builder.tell(f"running it on {listed([str(t) for t in targets])}")
        conversion, hints = outcome.conversion, outcome.ran.hints
        return [
            start(self._workers, target, self._job(conversion, self._survey.cases, hints))
            for target in targets
        ]

    def judge_targets(
        self, runs: list[TargetRun], outcome: MnnOutcome, tolerance: Tolerance, rounding: Rounding
    ) -> list[TargetProof]:
        """What :meth:`start_targets` started gave, by *tolerance* in float32, else by *rounding* too."""
        if not runs:
            return without_model(self._builder.targets, outcome.compare)
        return [judged(run, tolerance, self._precision.budget, rounding) for run in runs]

    def _run_twice(
        self, conversion: Conversion, tolerance: Tolerance, artifact: Artifact, hints: dict[str, int]
    ) -> tuple[MnnRunResult, Check]:
        """Run the converted model in two processes, in the settings *hints* or others if need be; compare.

        At sizes between those of the cases it must give what the *artifact* does, in the same settings.

        Raises:
            StepFailed: a process crashed.
        """
        # What one load keeps of a small shape must not spoil a larger one.
        cases = sorted(self._survey.cases, key=lambda c: c.file.size)
        again = cases if self._survey.signature.dims else cases[:1]
        within = None if self._precision.reduced or hints else tolerance
        runs = [
            self._start(conversion, chosen, fresh=fresh, within=within, hints=hints)
            for chosen, fresh in ((cases, False), (again, True))
        ]
        first, second = (run.result().value for run in runs)
        # Where one of them met a case for which the defaults are too rough, both run as that case asks.
        if first.hints and not second.hints:
            second = self._start(conversion, again, fresh=True, hints=first.hints).result().value
        elif second.hints and not first.hints:
            repeated = self._start(conversion, cases, fresh=False, hints=second.hints).result().value
            first = msgspec.structs.replace(repeated, default_excess=second.default_excess)
        between, beyond = self._between(conversion, tolerance, artifact, first.hints)
        if beyond is not None and beyond.hints and not first.hints:
            first, second = (
                self._start(conversion, chosen, fresh=fresh, hints=beyond.hints).result().value
                for chosen, fresh in ((cases, False), (again, True))
            )
            first = msgspec.structs.replace(first, default_excess=beyond.default_excess)
        check = compared(self._survey, catalog.MNN_COMPARE, first, NARROWED_OUTPUTS, tolerance)
        if self._learn(check):
            check = compared(self._survey, catalog.MNN_COMPARE, first, NARROWED_OUTPUTS, tolerance)
        if first.default_excess is not None:
            numbers = {**check.numbers, "excess_at_default_settings": first.default_excess}
            check = msgspec.structs.replace(check, numbers=numbers)
        check = confirmed(check, first, second, again, tolerance, NARROWED_OUTPUTS)
        return first, _also_between(check, between, beyond, tolerance)

    def _between(
        self, conversion: Conversion, tolerance: Tolerance, artifact: Artifact, hints: dict[str, int]
    ) -> tuple[list[CaseFile], MnnRunResult | None]:
        """Cases at further sizes, and the run of the converted model on them; None if there are none.

        Raises:
            StepFailed: the process crashed.
        """
        if self._precision.reduced or not self._survey.signature.dims:
            return [], None
        cases = cases_between(self._workers, self._survey, artifact)
        if not cases:
            return [], None
        within = msgspec.structs.replace(tolerance, noise=tolerance.largest_noise())
        # Afresh for each: a convolution that has run at another size may keep the algorithm of that.
        running = self._start(conversion, cases, fresh=True, hints=hints, within=None if hints else within)
        return cases, running.result().value

    def _start(
        self,
        conversion: Conversion,
        cases: list[CaseFile],
        *,
        fresh: bool,
        within: Tolerance | None = None,
        hints: dict[str, int] | None = None,
        session: bool = False,
    ) -> Future[Reply[MnnRunResult]]:
        job = self._job(conversion, cases, hints or {})
        return self._workers.submit(
            RUN, msgspec.structs.replace(job, fresh=fresh, within=within, session=session)
        )

    def _job(self, conversion: Conversion, cases: list[CaseFile], hints: dict[str, int]) -> MnnRunJob:
        assert conversion.model is not None
        return MnnRunJob(
            model=conversion.model.path,
            cases=cases,
            input_names=conversion.input_names,
            output_names=conversion.output_names,
            layouts=conversion.layouts,
            directory=str(self._workers.directory("mnn")),
            hints=hints,
        )

    def _conversion(self, artifact: Artifact, converting: Future[Reply[Converted]]) -> Conversion:
        try:
            converted = converting.result().value
        except StepFailed as failure:
            return Conversion(
                unanswered(catalog.MNN_CONVERT, failure, f"MNN's converter {describe(failure)}"),
                death=failure.death if failure.fate == "crash" and not failure.unable else None,
            )
        if converted.frontend_missing:
            return Conversion(
                catalog.MNN_CONVERT.not_run("the converter at hand has no frontend for this format")
            )
        if converted.unable:
            return Conversion(catalog.MNN_CONVERT.not_run(converted.reason))
        if not converted.ok:
            return self._refused(artifact, converted)
        return self._named(converted)

    def _refused(self, artifact: Artifact, converted: Converted) -> Conversion:
        nodes = refused_nodes(self._workers, artifact, converted, self._builder.mnnconvert)
        where = f" (nodes: {', '.join(nodes)})" if nodes else ""
        subject = nodes[0] if nodes else ", ".join(converted.refused_ops)
        return Conversion(
            catalog.MNN_CONVERT.failed(converted.reason + where, subject=subject),
            death=None if nodes or converted.refused_ops else converted.mishap,
        )

    def _named(self, converted: Converted) -> Conversion:
        """The conversion that went well, its inputs and outputs matched to the signature's."""
        signature = self._survey.signature
        inputs = match_names([s.name for s in signature.inputs], [t.name for t in converted.inputs], "input")
        outputs = match_names([s.name for s in signature.outputs], converted.outputs, "output")
        layouts = {t.name: t.layout for t in converted.inputs}
        return Conversion(
            catalog.MNN_CONVERT.passed(),
            converted,
            inputs.names,
            outputs.names,
            {ours: layouts[theirs] for ours, theirs in inputs.names.items() if theirs in layouts},
            inputs.problem or outputs.problem,
        )


def _also_between(
    check: Check, cases: list[CaseFile], ran: MnnRunResult | None, tolerance: Tolerance
) -> Check:
    """*check*, failed if the run on *cases* at further sizes leaves the tolerance."""
    if ran is None or check.status is not Status.PASSED:
        return check
    within = msgspec.structs.replace(tolerance, noise=tolerance.largest_noise())
    found = compare_run(catalog.MNN_COMPARE, cases, ran, within, NARROWED_OUTPUTS)
    numbers = {**check.numbers, "sizes_between": len(cases)}
    if found.status is not Status.FAILED:
        return msgspec.structs.replace(check, numbers=numbers)
    reason = f"at sizes between those of the cases, held to the artifact: {found.reason}"
    return msgspec.structs.replace(check, status=Status.FAILED, reason=reason, numbers=numbers)
