"""`prepare` for a factory whose weights are larger than the memory limit.

The graph is exported without them, then their bytes come from the checkpoint.

The decision is made before anything is loaded, by the sizes in the checkpoint's plan, and stands in the
manifest.  The proof has to load the net; it has a limit of its own, and what does not fit there was not run.
"""

from __future__ import annotations

from concurrent.futures import Future
from dataclasses import replace
from pathlib import Path

import msgspec

from mnnprep.attempt.builder import ArtifactBuilder
from mnnprep.attempt.results import AttemptResult
from mnnprep.attempt.verifier import Verifier, not_compared, weigh
from mnnprep.bundle.manifest import Manifest
from mnnprep.commands.record import write_bundle
from mnnprep.errors import MnnprepError, RefusedError, UsageError
from mnnprep.evidence import catalog
from mnnprep.evidence.check import Check
from mnnprep.evidence.verdict import PREPARE, Verdict, verdict
from mnnprep.formats.backend import ArtifactFormat, ExportRecipe, SourceSteps, Streaming
from mnnprep.formats.registry import ARTIFACTS, BACKENDS, steps_of
from mnnprep.formats.streaming import AttachJob, CompareJob, Filling, Skeleton
from mnnprep.model.messages import Exported, ExportJob, Source, Survey, SurveyJob
from mnnprep.model.request import Limits, Request
from mnnprep.repair.steps import REPAIR, AppliedRule, RepairJob
from mnnprep.repair.table import always_rules
from mnnprep.targets.environment import engine_workers
from mnnprep.text import Progress, binary_size
from mnnprep.weights.places import Files
from mnnprep.weights.read import plan_state
from mnnprep.workers.failure import StepFailed, internal
from mnnprep.workers.host import Reply
from mnnprep.workers.pool import Workers
from mnnprep.workers.step import J, R, Step

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
    """Why the weights are streamed; empty if the source is loaded.

    Raises:
        UsageError: a call that asks for it and can't have it.
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
            seen=binary_size(request.limits.proof_memory),
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
        f"loading {binary_size(size)} of weights takes them twice and {binary_size(BASE)}, and --memory is"
        f" {binary_size(request.limits.memory)}"
    )


def checkpoint_size(path: str) -> int:
    """Return the bytes of the state dict in a checkpoint, by its plan.

    Those of its files if only the model tells which state dict is meant.
    """
    with Files() as files:
        try:
            return sum(tensor.nbytes for tensor in plan_state(files.at(path)).tensors.values())
        except MnnprepError:
            place = Path(path)
            return sum(
                f.stat().st_size for f in ([place] if place.is_file() else place.rglob("*")) if f.is_file()
            )


def prepare_streamed(
    request: Request,
    source: Source,
    steps: SourceSteps,
    reason: str,
    target: Path,
    *,
    private: list[str],
    force: bool,
    tell: Progress,
) -> Manifest:
    """:func:`mnnprep.commands.prepare.prepare` by the streamed method; *reason* is why."""
    streaming = steps.streaming
    assert streaming is not None
    with Workers(request.limits, replaced=engine_workers(request.engine)) as workers:
        tell(f"exporting without the weights: {reason}")
        skeleton, applied = _graph(workers, request, source, streaming)
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
            format=streaming.recipe.target,
            opset=skeleton.opset,
            files=attached.files,
            checks=skeleton.checks,
            refused_opsets=skeleton.refused_opsets,
            notes=[f"weights streamed from the checkpoint: {reason}", *skeleton.notes, *attached.notes],
        )
        survey, result = _proven(
            workers, request, source, steps, streaming, exported, skeleton, filling, private, tell, applied
        )
        if result.verdict is not Verdict.PROVEN:
            workers.require_sound()
        tell("writing the bundle")
        return write_bundle(request, source, steps, survey, [result], result, target, force=force)


def _graph(
    workers: Workers, request: Request, source: Source, streaming: Streaming
) -> tuple[Skeleton, tuple[AppliedRule, ...]]:
    """The graph without weights, repaired if MNN's result would be undefined; and the repairs."""
    job = ExportJob(
        source=source,
        wants=request.wants,
        method=streaming.recipe.method,
        opset=request.opset,
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
    return skeleton, tuple(repaired.fired)


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
    streaming: Streaming,
    exported: Exported,
    skeleton: Skeleton,
    filling: Filling,
    private: list[str],
    tell: Progress,
    applied: tuple[AppliedRule, ...],
) -> tuple[Survey, AttemptResult]:
    """The survey and the verified attempt.

    What the proof's limit has no room for was not run, and says so.
    """
    recipe = replace(streaming.recipe, opset=request.opset)

    def weigh_streamed(_: ArtifactFormat, model: str) -> Future[Reply[Check]]:
        return workers.submit(streaming.compare, CompareJob(filling=filling, model=model))

    limits = request.limits.for_proof()
    unfit = _no_room(exported, limits)
    if not unfit:
        tell("running the reference on the source")
        workers.limits = limits
        lean = msgspec.structs.replace(source, lean=True)
        job = SurveyJob(source=lean, wants=request.wants, directory=str(workers.directory("survey")))
        try:
            survey = msgspec.structs.replace(workers.run(steps.survey, job), parameters=skeleton.parameters)
        except StepFailed as failure:
            if failure.error is not None:
                raise failure.error from failure
            unfit = f"the reference run {failure.reason}"
        else:
            builder = ArtifactBuilder(workers, request, tell, copies=False)
            verifier = Verifier(
                survey,
                lean,
                builder,
                steps=steps,
                private=private,
                wants=request.wants,
                metrics=request.metrics,
                weigh=weigh_streamed,
                applied=applied,
            )
            result = verifier.verify(builder.build(recipe, _done(exported)))
            best = (verifier.repair(result) or result) if result.repairable else result
            return best.survey or survey, best
    workers.limits = request.limits
    tell("comparing the artifact's weights with the checkpoint's")
    weights = weigh(weigh_streamed(ARTIFACTS[exported.format], exported.files[0].path))
    return _unproven(recipe, exported, skeleton, [*exported.checks, weights], unfit, applied)


def _no_room(exported: Exported, limits: Limits) -> str:
    """Why a net of this size can't be run within *limits*; empty where it can."""
    size = sum(file.size for file in exported.files)
    if not 0 < limits.memory < size:
        return ""
    return f"the net has {binary_size(size)} and the proof may use {binary_size(limits.memory)}"


def _unproven(
    recipe: ExportRecipe,
    exported: Exported,
    skeleton: Skeleton,
    made: list[Check],
    unfit: str,
    applied: tuple[AppliedRule, ...],
) -> tuple[Survey, AttemptResult]:
    """The result of an artifact that could not be run, for *unfit*; *made* are the checks that it has."""
    survey = Survey(
        signature=skeleton.signature, cases=[], checks=[], noise={}, parameters=skeleton.parameters
    )
    profile = PREPARE.with_dims(d.name for d in survey.signature.dims)
    lacking = [name for name in profile.required if name not in {check.check for check in made}]
    why = f"{unfit}; raise --proof-memory or --timeout"
    checks = [*made, *(catalog.row(name).not_run(why) for name in lacking)]
    concluded = verdict(checks, profile)
    result = AttemptResult(
        recipe,
        exported,
        checks=(*checks, *not_compared(applied)),
        verdict=concluded,
        refused_opsets=tuple(exported.refused_opsets),
        repairs=applied,
    )
    return survey, result


def _done(exported: Exported) -> Future[Reply[Exported]]:
    future: Future[Reply[Exported]] = Future()
    future.set_result(Reply(exported, 0.0, 0))
    return future
