"""`prepare` for a factory whose weights are larger than the memory limit: the graph without them, then the
bytes from the checkpoint.

The decision is made before anything is loaded, by the sizes in the checkpoint's plan, and stands in the
manifest.  The proof has to load the net; it has a limit of its own, and what does not fit there was not run.
"""

from __future__ import annotations

from concurrent.futures import Future
from dataclasses import replace
from pathlib import Path

import msgspec

from mnnprep.bundle.manifest import Manifest
from mnnprep.core.messages import Exported, ExportJob, Source, Survey, SurveyJob
from mnnprep.core.request import Request
from mnnprep.errors import MnnprepError, RefusedError, UsageError
from mnnprep.evidence import catalog
from mnnprep.evidence.check import Check
from mnnprep.evidence.verdict import PREPARE, Verdict, verdict
from mnnprep.formats.backend import ArtifactFormat, ExportRecipe, SourceSteps, Streaming
from mnnprep.formats.registry import BACKENDS, steps_of
from mnnprep.formats.streaming import AttachJob, CompareJob, Filling, Skeleton
from mnnprep.isolate.host import Reply, StepFailed, internal
from mnnprep.isolate.step import J, R, Step
from mnnprep.pipeline.attempt import Judge, weigh
from mnnprep.pipeline.making import Maker, Tell
from mnnprep.pipeline.record import write_bundle
from mnnprep.pipeline.tried import Tried, why_not
from mnnprep.pipeline.workers import Workers
from mnnprep.rules.steps import REPAIR, AppliedRule, RepairJob
from mnnprep.rules.table import always_rules
from mnnprep.weights.places import Files
from mnnprep.weights.read import plan_state

BASE = 512 << 20  # bytes of a framework and a graph, without weights
# The targets of the methods that stream weights.
METHODS = {
    kind.steps.streaming.recipe.method: kind.steps.streaming.recipe.target
    for backend in BACKENDS
    for kind in backend.kinds
    if kind.steps and kind.steps.streaming
}
COPIES = 2  # of the weights while a source is loaded: the model's own, and the checkpoint's pages


def why_streamed(request: Request, source: Source) -> str:
    """Why the weights are streamed; empty where the source is loaded.

    Raises UsageError for a call that asks for it and can't have it.
    """
    streaming = steps_of(source.kind).streaming
    asked = request.method in METHODS
    fitting = (
        streaming is not None
        and bool(source.weights)
        and request.to in ("", streaming.recipe.target)
        and not request.tflite_precision
    )
    if asked and not fitting:
        raise UsageError(
            f"--method {request.method} takes a PyTorch factory with --weights, to {METHODS[request.method]}",
            seen=source.kind
            + ("" if source.weights else " without --weights")
            + (f", --to {request.to}" if request.to else ""),
            next="give file.py:callable and --weights CKPT, or leave --method out",
        )
    if request.limits.proof_memory and not (fitting and (asked or request.limits.memory)):
        raise UsageError(
            "--proof-memory is for weights that are streamed",
            seen=shown(request.limits.proof_memory),
            next=(
                "give a PyTorch factory with --weights, and --memory; or leave it out: --memory holds for the"
                " proof too"
            ),
        )
    if not fitting or request.method not in ("auto", *METHODS):
        return ""
    if asked:
        return "asked for by --method"
    if not request.limits.memory:
        return ""
    size = checkpoint_size(source.weights)
    if COPIES * size + BASE <= request.limits.memory:
        return ""
    return (
        f"loading {shown(size)} of weights takes them twice and {shown(BASE)}, and --memory is"
        f" {shown(request.limits.memory)}"
    )


def checkpoint_size(path: str) -> int:
    """The bytes of the state dict in a checkpoint, by its plan; those of its files where only the model tells
    which state dict is meant.
    """
    with Files() as files:
        try:
            return sum(tensor.nbytes for tensor in plan_state(files.at(path)).tensors.values())
        except MnnprepError:
            place = Path(path)
            return sum(
                f.stat().st_size for f in ([place] if place.is_file() else place.rglob("*")) if f.is_file()
            )


def shown(size: int) -> str:
    """A size as people say it."""
    return f"{size / 2**30:.2f} GiB" if size >= 1 << 30 else f"{size / 2**20:.0f} MiB"


def prepare_streamed(
    request: Request,
    source: Source,
    steps: SourceSteps,
    reason: str,
    target: Path,
    *,
    private: list[str],
    force: bool,
    tell: Tell,
) -> Manifest:
    """:func:`mnnprep.pipeline.prepare.prepare` by the streamed method; *reason* is why."""
    streaming = steps.streaming
    assert streaming is not None
    attempt = replace(streaming.recipe, opset=request.opset)
    with Workers(request.limits) as workers:
        tell(f"exporting without the weights: {reason}")
        skeleton, fired = _graph(workers, request, source, attempt, streaming)
        filling = Filling(
            skeleton=skeleton.file.path,
            checkpoint=source.weights,
            weights=skeleton.weights,
            shapes=skeleton.shapes,
        )
        tell("streaming the weights from the checkpoint")
        job = AttachJob(filling=filling, directory=str(workers.directory("artifact")))
        attached = _step(workers, streaming.attach, job, "streaming the weights")
        exported = Exported(
            format=attempt.target,
            opset=skeleton.opset,
            files=attached.files,
            checks=skeleton.checks,
            refused_opsets=skeleton.refused_opsets,
            notes=[f"weights streamed from the checkpoint: {reason}", *skeleton.notes, *attached.notes],
        )
        survey, tried = _proven(
            workers, request, source, steps, attempt, exported, skeleton, filling, private, tell
        )
        tried.repairs = [*fired, *tried.repairs]
        if fired:
            tried.checks.append(
                catalog.REPAIRS.not_run(
                    "the artifact had no weights yet when it was repaired, so it did not run before",
                    required=False,
                )
            )
        if tried.verdict is not Verdict.PROVEN:
            workers.require_sound()
        tell("writing the bundle")
        return write_bundle(request, source, steps, survey, [tried], tried, target, force=force)


def _graph(
    workers: Workers, request: Request, source: Source, attempt: ExportRecipe, streaming: Streaming
) -> tuple[Skeleton, list[AppliedRule]]:
    """The graph without weights, repaired where MNN's result would be undefined; and the repairs."""
    job = ExportJob(
        source=source,
        wants=request.wants,
        method=attempt.method,
        opset=attempt.opset,
        directory=str(workers.directory("export")),
    )
    skeleton = _step(workers, streaming.export, job, "the export without weights")
    repair = RepairJob(
        model=skeleton.file.path,
        directory=str(workers.directory("repair")),
        rules=always_rules() if request.repairs is None else list(request.repairs),
    )
    repaired = _step(workers, REPAIR, repair, "the repair of the graph")
    if repaired.files:
        skeleton = msgspec.structs.replace(skeleton, file=repaired.files[0])
    return skeleton, repaired.fired


def _step(workers: Workers, step: Step[J, R], job: J, what: str) -> R:
    """Run a step that must succeed.

    Raises the user's error, or a RefusedError for a limit that it went over.
    """
    try:
        return workers.run(step, job)
    except StepFailed as failure:
        if failure.error is not None:
            raise failure.error from failure
        if failure.unable:
            raise RefusedError(
                f"{what} {failure.reason}", seen=failure.log[-500:], next="raise --timeout or --memory"
            ) from failure
        raise internal(failure, f"{what} failed") from failure


def _proven(
    workers: Workers,
    request: Request,
    source: Source,
    steps: SourceSteps,
    attempt: ExportRecipe,
    exported: Exported,
    skeleton: Skeleton,
    filling: Filling,
    private: list[str],
    tell: Tell,
) -> tuple[Survey, Tried]:
    """The survey and the judged attempt; what the proof's limit has no room for was not run, and says so."""
    limits = request.limits.for_proof()
    size = sum(f.size for f in exported.files)
    unfit = (
        f"the net has {shown(size)} and the proof may use {shown(limits.memory)}"
        if 0 < limits.memory < size
        else ""
    )
    if not unfit:
        tell("running the reference on the source")
        workers.limits = limits
        job = SurveyJob(
            source=msgspec.structs.replace(source, lean=True),
            wants=request.wants,
            directory=str(workers.directory("survey")),
        )
        try:
            survey = msgspec.structs.replace(workers.run(steps.survey, job), parameters=skeleton.parameters)
        except StepFailed as failure:
            if failure.error is not None:
                raise failure.error from failure
            unfit = f"the reference run {failure.reason}"
        else:
            maker = StreamedMaker(
                workers,
                mnnconvert=request.mnnconvert,
                tell=tell,
                precision=request.precision,
                static=request.static,
                repairs=request.repairs,
            )
            judge = StreamedJudge(
                survey,
                job.source,
                maker,
                steps=steps,
                private=private,
                wants=request.wants,
                metrics=request.metrics,
            )
            judge.filling = filling
            tried = judge.judge(maker.make(attempt, _done(exported)))
            return survey, (judge.repair(tried) or tried) if tried.repairable() else tried
    workers.limits = request.limits
    survey = Survey(
        signature=skeleton.signature, cases=[], checks=[], noise={}, parameters=skeleton.parameters
    )
    tell("comparing the artifact's weights with the checkpoint's")
    assert steps.streaming is not None
    compare = CompareJob(filling=filling, model=exported.files[0].path)
    weights = weigh(workers.submit(steps.streaming.compare, compare))
    tried = Tried(attempt, exported=exported, original=exported, refused_opsets=exported.refused_opsets)
    made = [*exported.checks, weights]
    profile = PREPARE.with_dims(d.name for d in survey.signature.dims)
    lacking = [n for n in profile.required if n not in {c.check for c in made}]
    tried.checks = [
        *made,
        *(catalog.row(n).not_run(f"{unfit}; raise --proof-memory or --timeout") for n in lacking),
    ]
    tried.verdict, tried.reason = verdict(tried.checks, profile), why_not(tried.checks)
    return survey, tried


def _done(exported: Exported) -> Future[Reply[Exported]]:
    future: Future[Reply[Exported]] = Future()
    future.set_result(Reply(exported, 0.0, 0))
    return future


class StreamedMaker(Maker):
    """Makes no second copy of an artifact that already lies in a directory of its own."""

    def stage(self, exported: Exported) -> Path:
        directory = Path(exported.files[0].path).parent
        names = {Path(f.path).name for f in exported.files}
        return directory if {p.name for p in directory.iterdir()} == names else super().stage(exported)


class StreamedJudge(Judge):
    """Compares the artifact's weights with the checkpoint's."""

    filling: Filling

    def _start_weighing(self, kind: ArtifactFormat, model: str) -> Future[Reply[Check]]:
        assert self.steps.streaming is not None
        return self.workers.submit(
            self.steps.streaming.compare, CompareJob(filling=self.filling, model=model)
        )
