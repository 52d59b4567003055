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
from mnnprep.core.messages import CaseFile, Exported, ExportJob, Located, LocateJob, OpsetRefused, Ran, RunJob, Source, Survey, Wants, WeightsJob
from mnnprep.core.request import Precision
from mnnprep.errors import InternalError
from mnnprep.formats.onnx.net import NO_KERNEL
from mnnprep.formats.onnx.scan import operators_in
from mnnprep.formats.plans import ARTIFACTS, ArtifactFormat, Attempt, Plan
from mnnprep.isolate.host import Reply, StepFailed
from mnnprep.mnn.convert import Converted, ConvertJob
from mnnprep.mnn.names import match_names
from mnnprep.mnn.run import ACCURATE_HINTS, NARROWED_OUTPUTS, MnnRunJob
from mnnprep.mnn.torch_frontend import unregistered
from mnnprep.pipeline.workers import Workers, listed_operators
from mnnprep.proof.cost import precision_cost
from mnnprep.proof.judge import compare_run, dimension_checks, repeated, standing
from mnnprep.rules.steps import Fired, Repaired, RepairJob
from mnnprep.rules.table import all_rules, always_rules, applicable

MNN_PRELOAD = ("numpy", "_tools", "MNN", "MNN.nn", "MNN.expr")
CONVERT = "mnnprep.mnn.convert:convert"
MNN_RUN = "mnnprep.mnn.run:run"
REPAIR = "mnnprep.rules.steps:repair"
RULES_PRELOAD = ("numpy", "onnx_ir")
ROUGH = 1000.0  # times the tolerance: beyond, no rounding explains it
SHOWN_NODES = 5
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
            tried.checks.append(_frontend_operators(made.operators))
        self._prove(tried, weights_in_file)
        dims = [d.name for d in self.survey.signature.dims]
        tried.verdict = verdict(tried.checks, dims)
        if tried.verdict is not Verdict.PROVEN:
            tried.reason = why_not(tried.checks)
        return tried

    def _apply(self, tried: Tried, made: Exported, rules: list[str]) -> bool:
        """Apply *rules*; False (with the reason in *tried*) when that failed."""
        supported = listed_operators(self.workers, MNN_PRELOAD, self.mnnconvert) if set(rules) - set(always_rules()) else None
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
        kind = ARTIFACTS[tried.exported.format]
        model = str(tried.directory / Path(tried.exported.files[0].path).name)
        seed = _seed(tried.exported.files)
        self.tell(f"running the artifact in {kind.runtime}, converting it to MNN")
        running = self._start_run(kind, model)
        convert_job = ConvertJob(
            model=model, frontend=kind.frontend, uuid_seed=seed, directory=str(self.workers.directory("convert")),
            extra_model=str(tried.directory / Path(tried.exported.files[1].path).name) if kind.second_file else "",
            converter=self.mnnconvert, timeout=self.workers.limits.timeout, fp16=self.precision.fp16, weight_bits=self.precision.weight_bits,
            static=self.static,
        )  # fmt: skip
        converting = self.workers.submit(MNN_PRELOAD, CONVERT, convert_job, Converted)
        source_weights = self.survey.weights.path if self.survey.weights else ""
        weights_job = WeightsJob(model=model, source=source_weights, source_model=self.source.path if weights_in_file else "")
        weighing = self.workers.submit(kind.preload, kind.weights, weights_job, Check)

        before = None
        if tried.repairs and tried.original is not None:
            before = self._start_run(kind, str(self._stage(tried.original) / Path(tried.original.files[0].path).name))
        artifact = self._artifact_checks(tried, running, kind.runtime)
        if before is not None:
            tried.checks.append(self._repairs_check(tried, before, running))
        try:
            tried.checks.append(weighing.result().value)
        except StepFailed as failure:
            tried.checks.append(not_run("weights", describe(failure)))
        mnn = self._mnn_checks(tried, converting)
        checks, tried.proven_sizes = dimension_checks(self.survey, {"the artifact": artifact, "MNN": mnn})
        tried.checks += checks

    def _start_run(self, kind: ArtifactFormat, model: str) -> Future[Reply[Ran]]:
        job = RunJob(
            model=model, cases=self.survey.cases, signature=self.survey.signature, directory=str(self.workers.directory("run")), forbid=self.private
        )
        return self.workers.submit(kind.preload, kind.run, job, Ran)

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
            unable = failure.error is not None and failure.error.what == NO_KERNEL
            verb, ask = ("can't be run", not_run) if unable else ("does not run", failed)
            tried.checks += [
                ask("self_contained", f"the artifact {verb} on its own in {runtime}: {describe(failure)}"),
                not_run("artifact_compare", "the artifact did not run"),
            ]
            return None
        tried.checks.append(passed("self_contained", numbers={"files": len(tried.exported.files) if tried.exported else 0}))
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
        check = self._run_mnn(tried, converted.file.path, {})
        if check is not None and not self.precision.reduced and only_imprecise(check):
            self.tell("running it in MNN with more accurate settings")
            accurate = self._run_mnn(tried, converted.file.path, ACCURATE_HINTS)
            if accurate is not None and accurate.status is Status.PASSED:
                tried.hints = ACCURATE_HINTS
                numbers = {**accurate.numbers, "excess_at_default_settings": check.numbers["excess"]}
                check = msgspec.structs.replace(accurate, numbers=numbers)
        if check is None:
            return None
        tried.checks.append(check)
        if self.precision.reduced and tried.ran is not None:
            tried.checks.append(precision_cost(self.survey.cases, tried.ran, check, self.precision, converted.file.size))
        if check.status is Status.FAILED and self.survey.opinion and tried.ran is not None:
            tried.checks.append(standing(self.survey.opinion, tried.ran, self.survey.checks, self.tolerance))
        return check

    def _run_mnn(self, tried: Tried, model: str, hints: dict[str, int]) -> Check | None:
        """Run the converted model twice, in two processes, and compare; None (with a failed check) when that crashed."""
        cases = sorted(self.survey.cases, key=lambda c: c.file.size)  # what one load keeps of a small shape must not spoil a larger one
        again = cases if self.survey.signature.dims else cases[:1]
        runs = [self._start_mnn(tried, model, chosen, fresh=fresh, hints=hints) for chosen, fresh in ((cases, False), (again, True))]
        try:
            first, second = (run.result().value for run in runs)
        except StepFailed as failure:
            tried.checks.append(failed("mnn_compare", f"MNN's runtime {describe(failure)}"))
            return None
        tried.ran, tried.narrowed, tried.narrowed_inputs = first, first.narrowed, first.narrowed_inputs
        return repeated(self._compare("mnn_compare", first, NARROWED_OUTPUTS, self.mnn_tolerance), first, second, self.tolerance, cases=again)

    def _start_mnn(self, tried: Tried, model: str, cases: list[CaseFile], *, fresh: bool, hints: dict[str, int]) -> Future[Reply[Ran]]:
        job = MnnRunJob(
            hints=hints, model=model, cases=cases, input_names=tried.input_names, output_names=tried.output_names, layouts=tried.layouts,
            directory=str(self.workers.directory("mnn")), fresh=fresh,
        )  # fmt: skip
        return self.workers.submit(MNN_PRELOAD, MNN_RUN, job, Ran)

    def _conversion(self, tried: Tried, converting: Future[Reply[Converted]]) -> Converted | None:
        try:
            converted = converting.result().value
        except StepFailed as failure:
            tried.checks.append(failed("mnn_convert", f"MNN's converter {describe(failure)}"))
            return None
        if converted.frontend_missing:
            reason = "the converter at hand has no frontend for this format; give one that has with --mnnconvert, or prepare --to onnx"
            tried.checks.append(not_run("mnn_convert", reason))
            return None
        if not converted.ok:
            nodes = self._nodes(tried, converted.refused_ops)
            where = f" (nodes: {', '.join(nodes)})" if nodes else ""
            tried.checks.append(failed("mnn_convert", converted.reason + where, subject=nodes[0] if nodes else ", ".join(converted.refused_ops)))
            return None
        tried.mnn, tried.mnn_weights = converted.file, converted.weights
        tried.converter_version = converted.version
        tried.checks.append(passed("mnn_convert"))
        return converted

    def _nodes(self, tried: Tried, operators: list[str]) -> list[str]:
        """The artifact's nodes of the operators that MNN refused, at most SHOWN_NODES of them."""
        assert tried.exported is not None and tried.directory is not None
        kind = ARTIFACTS[tried.exported.format]
        if not (operators and kind.locate):
            return []
        job = LocateJob(model=str(tried.directory / Path(tried.exported.files[0].path).name), operators=operators)
        try:
            nodes = self.workers.run(kind.preload, kind.locate, job, Located).nodes
        except StepFailed:
            return []
        return nodes[:SHOWN_NODES] + ([f"and {len(nodes) - SHOWN_NODES} more"] if len(nodes) > SHOWN_NODES else [])


def least_sqnr(exported: Exported, precision: Precision) -> float | None:
    """The SQNR that the converted model must reach, in dB: the lower of the artifact's and the asked precision's; None where neither has one."""
    return min((db for db in (exported.sqnr_db, precision.sqnr_db) if db is not None), default=None)


def _seed(files: list[FileRef]) -> str:
    """What the converted model's id is made from: the artifact's hash, or that of all its files' hashes."""
    if len(files) == 1:
        return files[0].sha256
    return hashlib.sha256("".join(f.sha256 for f in files).encode()).hexdigest()


def _frontend_operators(operators: list[str]) -> Check:
    """Whether MNN's Torch frontend has a name for every operator; it refuses those it has not, and may still fail on others."""
    foreign = unregistered(operators)
    numbers: dict[str, object] = {"operators": len(operators)}
    if foreign:
        return failed(
            "frontend_operators", f"MNN's Torch frontend does not read {', '.join(foreign)}; prepare --to onnx", required=False,
            subject=", ".join(foreign), numbers=numbers,
        )  # fmt: skip
    return passed("frontend_operators", required=False, numbers=numbers)


def only_imprecise(check: Check) -> bool:
    """Whether a comparison failed by numbers alone, and not by far: what a rougher algorithm would do."""
    wrong = [e for e in check.outputs if e.problem]
    return bool(wrong) and all(e.excess is not None and e.excess < ROUGH for e in wrong)


def why_not(checks: list[Check]) -> str:
    """Why the evidence is not a proof: the required checks that failed, else those that did not run."""
    for status in (Status.FAILED, Status.NOT_RUN):
        found = [c for c in checks if c.required and c.status is status]
        if found:
            return "; ".join(f"{c.check}: {c.reason}" for c in found)
    return ""
