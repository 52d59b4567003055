"""One attempt, from export to verdict."""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass, field
from pathlib import Path

import msgspec

from mnnprep.core.compare import Tolerance
from mnnprep.core.evidence import Check, Status, Verdict, failed, not_run, passed, verdict
from mnnprep.core.files import FileRef
from mnnprep.core.messages import CaseFile, CoverageJob, Exported, ExportJob, OpsetRefused, Ran, RunJob, Source, Survey, Wants, WeightsJob
from mnnprep.core.metrics import Metric
from mnnprep.core.request import Precision
from mnnprep.errors import InternalError
from mnnprep.formats.onnx.coverage import CONTROL_FLOW
from mnnprep.formats.onnx.net import NO_KERNEL
from mnnprep.formats.onnx.scan import operators_in
from mnnprep.formats.plans import ARTIFACTS, ArtifactFormat, Attempt, Plan
from mnnprep.isolate.host import Reply, StepFailed
from mnnprep.mnn.convert import Converted, ConvertJob
from mnnprep.mnn.names import match_names
from mnnprep.mnn.run import NARROWED_OUTPUTS, MnnRan, MnnRunJob
from mnnprep.mnn.torch_frontend import registered_check
from mnnprep.pipeline.culprit import named, shown, smallest_part
from mnnprep.pipeline.metrics import metric_checks
from mnnprep.pipeline.workers import Workers
from mnnprep.proof.cost import precision_cost
from mnnprep.proof.judge import compare_run, dimension_checks, repeated, standing
from mnnprep.rules.steps import Fired, Repaired, RepairJob
from mnnprep.rules.table import all_rules, always_rules, applicable

MNN_PRELOAD = ("numpy", "_tools", "MNN", "MNN.nn", "MNN.expr")
CONVERT = "mnnprep.mnn.convert:convert"
MNN_RUN = "mnnprep.mnn.run:run"
REPAIR = "mnnprep.rules.steps:repair"
COVERAGE = "mnnprep.formats.onnx.coverage:coverage"
RULES_PRELOAD = ("numpy", "onnx_ir")
Tell = Callable[[str], None]


@dataclass
class Tried:
    """An attempt and what became of it. Without ``exported`` nothing was made, and ``reason`` says why."""

    attempt: Attempt
    exported: Exported | None = None
    original: Exported | None = None  # what was exported, before repairs
    directory: Path | None = None
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
    repairs: list[Fired] = field(default_factory=list)
    hints: dict[str, int] = field(default_factory=dict)
    ran: Ran | None = None  # in MNN
    stumble: str = ""  # why the conversion failed, where that names no node
    artifact_ran: Ran | None = None

    def status(self, name: str) -> Status | None:
        """The status of a check, None where it was not asked."""
        return next((c.status for c in self.checks if c.check == name), None)

    def repairable(self) -> bool:
        """Whether the artifact is right, of the format that rules rewrite, and MNN refuses it or computes something else."""
        right = self.exported is not None and self.exported.format == "onnx" and self.status("artifact_compare") is Status.PASSED
        return right and Status.FAILED in (self.status("mnn_convert"), self.status("mnn_compare"))

    @property
    def opset(self) -> int:
        return self.exported.opset if self.exported else self.attempt.opset


def start_export(workers: Workers, plan: Plan, source: Source, wants: Wants, attempt: Attempt, tflite_precision: str = "") -> Future[Reply[Exported]]:
    directory = str(workers.directory("export"))
    job = ExportJob(source=source, wants=wants, method=attempt.method, opset=attempt.opset, directory=directory, tflite_precision=tflite_precision)
    return workers.submit(plan.preload, plan.export, job, Exported)


def describe(failure: StepFailed) -> str:
    """A failed step in one line: what it said, with the value seen, or how it died."""
    if failure.error is not None:
        if isinstance(failure.error, InternalError):
            return f"{failure.error.what} (in {failure.error.seen})"
        return failure.error.what + (f": {failure.error.seen}" if failure.error.seen else "")
    last = failure.log.strip().splitlines()[-1:] if failure.log else []
    return failure.reason + (f" (last line: {last[0]})" if last else "")


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
    ) -> None:
        self.workers = workers
        self.survey = survey
        self.source = source
        self.private = private
        self.mnnconvert = mnnconvert
        self.tell = tell
        self.tolerance = Tolerance(noise=survey.noise)
        self.precision = precision or Precision()
        self.static = static
        self.metrics = metrics
        self.mnn_tolerance = Tolerance(noise=survey.noise, sqnr_db=self.precision.sqnr_db)

    def judge(self, attempt: Attempt, export: Future[Reply[Exported]], *, weights_in_file: bool) -> Tried:
        """Wait for the export, then run, convert and compare what it made."""
        tried = Tried(attempt)
        try:
            tried.exported = export.result().value
        except StepFailed as failure:
            tried.reason = describe(failure)
            return tried
        tried.refused_opsets = tried.exported.refused_opsets
        self.tolerance = Tolerance(noise=self.survey.noise, sqnr_db=tried.exported.sqnr_db)
        self.mnn_tolerance = Tolerance(noise=self.survey.noise, sqnr_db=least_sqnr(tried.exported, self.precision))
        return self._judge_made(tried, tried.exported, always_rules(), weights_in_file)

    def repair(self, tried: Tried, *, weights_in_file: bool) -> Tried | None:
        """*tried* once more with every rule that answers what it has; None when there is nothing to repair."""
        assert tried.exported is not None
        self.tell("repairing what MNN does not take")
        again = self._judge_made(Tried(tried.attempt, original=tried.original), tried.original or tried.exported, all_rules(), weights_in_file)
        return again if [f.rule for f in again.repairs] != [f.rule for f in tried.repairs] else None

    def _judge_made(self, tried: Tried, made: Exported, rules: list[str], weights_in_file: bool) -> Tried:
        """Repair what was *made* by *rules*, then prove the outcome."""
        tried.original, tried.exported = made, made
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
        job = RepairJob(model=made.files[0].path, directory=str(self.workers.directory("repair")), rules=rules)
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
        kind, model = self._kind(tried), self._model(tried)
        self.tell(f"running the artifact in {kind.runtime}, converting it to MNN")
        second = str(tried.directory / Path(tried.exported.files[1].path).name) if kind.second_file else ""
        converting = self._convert(tried, model, second)  # takes longest: one step beside it at a time
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
        mnn = self._mnn_checks(tried, converting)
        if mnn is not None and mnn.status is Status.PASSED and self.survey.signature.dims:
            tried.checks.append(self._session_check(tried))
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
                check, before.result().value, after.result().value, self.tolerance, between="the artifact before and after the repair, in runs"
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
        check = self._compare("artifact_compare", ran, {}, self.tolerance)
        tried.checks.append(check)
        return check

    def _compare(self, name: str, ran: Ran, narrowing: dict[str, str], tolerance: Tolerance) -> Check:
        random = next((c for c in self.survey.checks if c.check == "determinism" and c.status is Status.FAILED), None)
        if random is not None:
            return not_run(name, "the source gives other numbers each time, so there is nothing to compare with")
        return compare_run(name, self.survey.cases, ran, tolerance, narrowing)

    def _mnn_checks(self, tried: Tried, converting: Future[Reply[Converted]]) -> Check | None:
        converted = self._conversion(tried, converting)
        if converted is None or converted.file is None:
            tried.checks.append(not_run("mnn_compare", "there is no converted model"))
            return None
        signature = self.survey.signature
        inputs = match_names([s.name for s in signature.inputs], [t.name for t in converted.inputs], "input")
        outputs = match_names([s.name for s in signature.outputs], converted.outputs, "output")
        tried.layouts = {ours: t.layout for ours, theirs in inputs.names.items() for t in converted.inputs if t.name == theirs}
        tried.input_names, tried.output_names = inputs.names, outputs.names
        if inputs.problem or outputs.problem:
            tried.checks.append(failed("mnn_compare", inputs.problem or outputs.problem))
            return None
        self.tell("running it in MNN, twice")
        check = self._run_mnn(tried, converted.file.path)
        if check is None:
            return None
        tried.checks.append(check)
        if self.precision.reduced and tried.ran is not None:
            tried.checks.append(precision_cost(self.survey.cases, tried.ran, check, self.precision, converted.file.size))
        if check.status is Status.FAILED and self.survey.opinion and tried.ran is not None:
            tried.checks.append(standing(self.survey.opinion, tried.ran, self.survey.checks, self.tolerance))
        return check

    def _run_mnn(self, tried: Tried, model: str) -> Check | None:
        """Run the converted model twice, in two processes, and compare; None (with a failed check) when that crashed."""
        cases = sorted(self.survey.cases, key=lambda c: c.file.size)  # what one load keeps of a small shape must not spoil a larger one
        again = cases if self.survey.signature.dims else cases[:1]
        within = None if self.precision.reduced else self.mnn_tolerance
        runs = [self._start_mnn(tried, model, chosen, fresh=fresh, within=within) for chosen, fresh in ((cases, False), (again, True))]
        try:
            first, second = (run.result().value for run in runs)
            if first.hints != second.hints:  # a case that only the first was given decided
                second = self._start_mnn(tried, model, again, fresh=True, hints=first.hints).result().value
        except StepFailed as failure:
            ask = not_run if failure.fate == "memory" else failed
            tried.checks.append(ask("mnn_compare", f"MNN's runtime {describe(failure)}"))
            return None
        tried.ran, tried.narrowed, tried.narrowed_inputs, tried.hints = first, first.narrowed, first.narrowed_inputs, first.hints
        check = self._compare("mnn_compare", first, NARROWED_OUTPUTS, self.mnn_tolerance)
        if first.default_excess is not None:
            check = msgspec.structs.replace(check, numbers={**check.numbers, "excess_at_default_settings": first.default_excess})
        return repeated(check, first, second, self.tolerance, cases=again)

    def _coverage(self, model: str) -> Check:
        """Whether the cases run every branch that the inputs' values decide."""
        fixed = [s.name for s in self.survey.signature.inputs if s.range and s.range[0] == s.range[1]]
        job = CoverageJob(model=model, cases=self.survey.cases, directory=str(self.workers.directory("coverage")), fixed=fixed)
        try:
            return self.workers.run(ARTIFACTS["onnx"].preload, COVERAGE, job, Check)
        except StepFailed as failure:
            return not_run("coverage", describe(failure))

    def _session_check(self, tried: Tried) -> Check:
        """Whether a Session that is resized from case to case gives the same as the Module API did; not required, for an app has the choice."""
        assert tried.mnn is not None
        running = self._start_mnn(tried, tried.mnn.path, self.survey.cases, fresh=False, hints=tried.hints, session=True)
        remedy = "use MNN's Module API, which is what was proven"
        try:
            check = self._compare("mnn_session", running.result().value, NARROWED_OUTPUTS, self.mnn_tolerance)
        except StepFailed as failure:
            return failed("mnn_session", f"a Session that is resized {describe(failure)}; {remedy}", required=False)
        reason = f"a Session that is resized: {check.reason}; {remedy}" if check.reason else ""
        return msgspec.structs.replace(check, required=False, reason=reason)

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
            model=model, cases=cases, input_names=tried.input_names, output_names=tried.output_names, layouts=tried.layouts,
            directory=str(self.workers.directory("mnn")), fresh=fresh, hints=hints or {}, within=within, session=session,
        )  # fmt: skip
        return self.workers.submit(MNN_PRELOAD, MNN_RUN, job, MnnRan)

    def _conversion(self, tried: Tried, converting: Future[Reply[Converted]]) -> Converted | None:
        try:
            converted = converting.result().value
        except StepFailed as failure:
            ask = not_run if failure.fate == "memory" else failed
            tried.stumble = failure.reason if failure.fate == "crash" else ""
            tried.checks.append(ask("mnn_convert", f"MNN's converter {describe(failure)}"))
            return None
        if converted.frontend_missing:
            reason = "the converter at hand has no frontend for this format; give one that has with --mnnconvert, or prepare --to onnx"
            tried.checks.append(not_run("mnn_convert", reason))
            return None
        if not converted.ok:
            nodes = named(self.workers, self._kind(tried), self._model(tried), converted, self.mnnconvert, MNN_PRELOAD)
            tried.stumble = "" if nodes or converted.refused_ops else converted.reason
            where = f" (nodes: {', '.join(nodes)})" if nodes else ""
            tried.checks.append(failed("mnn_convert", converted.reason + where, subject=nodes[0] if nodes else ", ".join(converted.refused_ops)))
            return None
        tried.mnn, tried.mnn_weights = converted.file, converted.weights
        tried.converter_version = converted.version
        tried.checks.append(passed("mnn_convert"))
        return converted

    def blame(self, tried: Tried) -> None:
        """Where MNN's converter crashed or failed without naming a node: find the smallest part of the artifact that makes it do so."""
        if not tried.stumble:
            return
        self.tell(f"looking for what MNN's converter stumbles over ({tried.attempt.method})")
        found = smallest_part(self.workers, self._kind(tried), self._model(tried), lambda part: self._stumble(tried, part) == tried.stumble)
        if part := ", ".join(shown(found)):
            tried.checks = [
                msgspec.structs.replace(c, reason=f"{c.reason}; the smallest part that makes it do so: {part}", subject=part)
                if c.check == "mnn_convert" else c for c in tried.checks
            ]  # fmt: skip
            tried.reason = why_not(tried.checks)

    def _stumble(self, tried: Tried, model: str) -> str:
        """Why MNN does not convert *model*, empty if it does."""
        try:
            return self._convert(tried, model, "").result().value.reason
        except StepFailed as failure:
            return failure.reason

    def _convert(self, tried: Tried, model: str, second: str) -> Future[Reply[Converted]]:
        assert tried.exported is not None
        job = ConvertJob(
            model=model, frontend=self._kind(tried).frontend, uuid_seed=_seed(tried.exported.files), directory=str(self.workers.directory("convert")),
            extra_model=second, converter=self.mnnconvert, timeout=self.workers.limits.timeout, fp16=self.precision.fp16,
            weight_bits=self.precision.weight_bits, static=self.static,
        )  # fmt: skip
        return self.workers.submit(MNN_PRELOAD, CONVERT, job, Converted)

    def _kind(self, tried: Tried) -> ArtifactFormat:
        assert tried.exported is not None
        return ARTIFACTS[tried.exported.format]

    def _model(self, tried: Tried) -> str:
        assert tried.exported is not None and tried.directory is not None
        return str(tried.directory / Path(tried.exported.files[0].path).name)


def least_sqnr(exported: Exported, precision: Precision) -> float | None:
    """The SQNR that the converted model must reach, in dB: the lower of the artifact's and the asked precision's; None where neither has one."""
    return min((db for db in (exported.sqnr_db, precision.sqnr_db) if db is not None), default=None)


def _seed(files: list[FileRef]) -> str:
    """What the converted model's id is made from: the artifact's hash, or that of all its files' hashes."""
    if len(files) == 1:
        return files[0].sha256
    return hashlib.sha256("".join(f.sha256 for f in files).encode()).hexdigest()


def why_not(checks: list[Check]) -> str:
    """Why the evidence is not a proof: the required checks that failed, else those that did not run."""
    for status in (Status.FAILED, Status.NOT_RUN):
        found = [c for c in checks if c.required and c.status is status]
        if found:
            return "; ".join(f"{c.check}: {c.reason}" for c in found)
    return ""
