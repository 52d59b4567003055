"""The half of an attempt that is MNN's: how the conversion went, run the outcome, compare; and what the
converter stumbles over.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future

import msgspec

from mnnprep.core.compare import Tolerance
from mnnprep.core.messages import CaseFile, Survey
from mnnprep.evidence import catalog
from mnnprep.evidence.check import Check, Status
from mnnprep.isolate.host import Reply, StepFailed
from mnnprep.mnn.convert import Converted
from mnnprep.mnn.names import match_names
from mnnprep.mnn.run import NARROWED_OUTPUTS, RUN, MnnRan, MnnRunJob
from mnnprep.pipeline.culprit import named, shown, smallest_part
from mnnprep.pipeline.making import Maker
from mnnprep.pipeline.tried import Stumble, Tried, describe, unanswered, why_not
from mnnprep.proof.cost import precision_cost
from mnnprep.proof.judge import compared, confirmed, standing

Tell = Callable[[str], None]


class MnnSide:
    """Runs converted artifacts on one survey's cases."""

    def __init__(self, survey: Survey, maker: Maker, learn: Callable[[Check], bool]) -> None:
        self._learn = learn  # the noise of what a check found wrong
        self.workers = maker.workers
        self.survey = survey
        self.maker = maker
        self.precision = maker.precision

    def checks(self, tried: Tried, converting: Future[Reply[Converted]]) -> Check | None:
        converted = self._conversion(tried, converting)
        if converted is None or converted.file is None:
            tried.checks.append(catalog.MNN_COMPARE.not_run("there is no converted model"))
            return None
        signature = self.survey.signature
        inputs = match_names([s.name for s in signature.inputs], [t.name for t in converted.inputs], "input")
        outputs = match_names([s.name for s in signature.outputs], converted.outputs, "output")
        tried.layouts = {
            ours: t.layout
            for ours, theirs in inputs.names.items()
            for t in converted.inputs
            if t.name == theirs
        }
        tried.input_names, tried.output_names = inputs.names, outputs.names
        if inputs.problem or outputs.problem:
            tried.checks.append(catalog.MNN_COMPARE.failed(inputs.problem or outputs.problem))
            return None
        self.maker.tell("running it in MNN, twice")
        check = self._run_mnn(tried, converted.file.path)
        if check is None:
            return None
        tried.checks.append(check)
        if self.precision.reduced and tried.ran is not None:
            tried.checks.append(
                precision_cost(self.survey.cases, tried.ran, check, self.precision, converted.file.size)
            )
        if check.status is Status.FAILED and self.survey.opinion and tried.ran is not None:
            tried.checks.append(standing(self.survey.opinion, tried.ran, self.survey.checks, tried.tolerance))
        return check

    def _run_mnn(self, tried: Tried, model: str) -> Check | None:
        """Run the converted model twice, in two processes, and compare; None (with a failed check) when that
        crashed.
        """
        cases = sorted(
            self.survey.cases, key=lambda c: c.file.size
        )  # what one load keeps of a small shape must not spoil a larger one
        again = cases if self.survey.signature.dims else cases[:1]
        within = None if self.precision.reduced else tried.mnn_tolerance
        runs = [
            self._start_mnn(tried, model, chosen, fresh=fresh, within=within)
            for chosen, fresh in ((cases, False), (again, True))
        ]
        try:
            first, second = (run.result().value for run in runs)
            if (
                first.hints and not second.hints
            ):  # one of them met a case for which the defaults are too rough: both as that asks
                second = self._start_mnn(tried, model, again, fresh=True, hints=first.hints).result().value
            elif second.hints and not first.hints:
                repeated = (
                    self._start_mnn(tried, model, cases, fresh=False, hints=second.hints).result().value
                )
                first = msgspec.structs.replace(repeated, default_excess=second.default_excess)
        except StepFailed as failure:
            tried.checks.append(
                unanswered(catalog.MNN_COMPARE, failure, f"MNN's runtime {describe(failure)}")
            )
            return None
        tried.ran, tried.narrowed, tried.narrowed_inputs, tried.hints = (
            first,
            first.narrowed,
            first.narrowed_inputs,
            first.hints,
        )
        check = compared(self.survey, catalog.MNN_COMPARE, first, NARROWED_OUTPUTS, tried.mnn_tolerance)
        if self._learn(check):
            check = compared(self.survey, catalog.MNN_COMPARE, first, NARROWED_OUTPUTS, tried.mnn_tolerance)
        if first.default_excess is not None:
            check = msgspec.structs.replace(
                check, numbers={**check.numbers, "excess_at_default_settings": first.default_excess}
            )
        return confirmed(check, first, second, again, tried.mnn_tolerance, NARROWED_OUTPUTS)

    def session(self, tried: Tried) -> Check:
        """Whether a Session that is resized from case to case gives the same as the Module API did; not
        required, for an app has the choice.
        """
        assert tried.mnn is not None
        running = self._start_mnn(
            tried, tried.mnn.path, self.survey.cases, fresh=False, hints=tried.hints, session=True
        )
        remedy = "use MNN's Module API, which is what was proven"
        try:
            check = compared(
                self.survey,
                catalog.MNN_SESSION,
                running.result().value,
                NARROWED_OUTPUTS,
                tried.mnn_tolerance,
            )
        except StepFailed as failure:
            return unanswered(
                catalog.MNN_SESSION, failure, f"a Session that is resized {describe(failure)}; {remedy}"
            )
        reason = f"a Session that is resized: {check.reason}; {remedy}" if check.reason else ""
        return msgspec.structs.replace(check, reason=reason)

    def _start_mnn(
        self,
        tried: Tried,
        model: str,
        cases: list[CaseFile],
        *,
        fresh: bool,
        within: Tolerance | None = None,
        hints: dict[str, int] | None = None,
        session: bool = False,
    ) -> Future[Reply[MnnRan]]:
        job = MnnRunJob(
            model=model,
            cases=cases,
            input_names=tried.input_names,
            output_names=tried.output_names,
            layouts=tried.layouts,
            directory=str(self.workers.directory("mnn")),
            fresh=fresh,
            hints=hints or {},
            within=within,
            session=session,
        )
        return self.workers.submit(RUN, job)

    def _conversion(self, tried: Tried, converting: Future[Reply[Converted]]) -> Converted | None:
        try:
            converted = converting.result().value
        except StepFailed as failure:
            tried.stumble = failure.death if failure.fate == "crash" and not failure.unable else None
            tried.checks.append(
                unanswered(catalog.MNN_CONVERT, failure, f"MNN's converter {describe(failure)}")
            )
            return None
        if converted.frontend_missing:
            reason = (
                "the converter at hand has no frontend for this format; give one that has with --mnnconvert,"
                " or prepare --to onnx"
            )
            tried.checks.append(catalog.MNN_CONVERT.not_run(reason))
            return None
        if converted.unable:
            tried.checks.append(catalog.MNN_CONVERT.not_run(converted.reason))
            return None
        if not converted.ok:
            nodes = named(self.workers, tried.kind, tried.model, converted, self.maker.mnnconvert)
            tried.stumble = None if nodes or converted.refused_ops else converted.mishap
            where = f" (nodes: {', '.join(nodes)})" if nodes else ""
            tried.checks.append(
                catalog.MNN_CONVERT.failed(
                    converted.reason + where,
                    subject=nodes[0] if nodes else ", ".join(converted.refused_ops),
                )
            )
            return None
        tried.mnn, tried.mnn_weights = converted.file, converted.weights
        tried.converter_version = converted.version
        tried.checks.append(catalog.MNN_CONVERT.passed())
        return converted

    def blame(self, tried: Tried) -> None:
        """Where MNN's converter crashed or failed without naming a node: find the smallest part of the
        artifact that makes it do so.
        """
        if tried.stumble is None:
            return
        self.maker.tell(f"looking for what MNN's converter stumbles over ({tried.attempt.method})")
        found = smallest_part(
            self.workers, tried.kind, tried.model, lambda part: self._stumble(tried, part) == tried.stumble
        )
        if part := ", ".join(shown(found)):
            tried.checks = [
                (
                    msgspec.structs.replace(
                        c, reason=f"{c.reason}; the smallest part that makes it do so: {part}", subject=part
                    )
                    if c.check == catalog.MNN_CONVERT.name
                    else c
                )
                for c in tried.checks
            ]
            tried.reason = why_not(tried.checks)

    def _stumble(self, tried: Tried, model: str) -> Stumble | None:
        """How MNN fails to convert *model*, None if it converts it."""
        try:
            return self.maker.convert(tried, model).result().value.mishap
        except StepFailed as failure:
            return failure.death
