"""`prepare`: source to bundle. The stages in order; the first attempt that is proven wins."""

from __future__ import annotations

import contextlib
import importlib
import os
from collections.abc import Callable
from concurrent.futures import FIRST_COMPLETED, Future, wait
from pathlib import Path
from typing import Any

from mnnprep.bundle import report, writer
from mnnprep.bundle.manifest import Manifest
from mnnprep.core.messages import LoadJob, Source, Survey, SurveyJob
from mnnprep.core.request import Request
from mnnprep.errors import RefusedError, UsageError
from mnnprep.evidence import catalog
from mnnprep.evidence.check import Status
from mnnprep.evidence.verdict import Verdict
from mnnprep.formats.backend import ExportRecipe, Role, SourceSteps
from mnnprep.formats.registry import ARTIFACTS, kind_of, live_backend, steps_of
from mnnprep.isolate.host import StepFailed, internal
from mnnprep.mnn.worker import CONVERTER, RUNTIME
from mnnprep.pipeline.attempt import Judge
from mnnprep.pipeline.baked import name_baked
from mnnprep.pipeline.making import Maker, start_export
from mnnprep.pipeline.naming import name_wrong
from mnnprep.pipeline.record import write_bundle
from mnnprep.pipeline.resolve import private_modules, resolve
from mnnprep.pipeline.streamed import prepare_streamed, why_streamed
from mnnprep.pipeline.tried import Tried
from mnnprep.pipeline.workers import Workers
from mnnprep.proof.judge import broken_promise
from mnnprep.rules.steps import REPAIR
from mnnprep.rules.table import RULES

Tell = Callable[[str], None]
RANK = {Verdict.PROVEN: 0, Verdict.UNPROVEN: 1, Verdict.DIFFERS: 2, Verdict.REFUSED: 3}


def prepare(
    request: Request,
    target: Path,
    *,
    force: bool = False,
    tell: Tell = lambda _: None,
    workers: Workers | None = None,
) -> Manifest:
    """Prepare ``request.source`` and write the bundle to *target*.

    Returns the bundle's manifest, whatever the verdict; the bundle holds the best attempt.  *workers* serve
    several calls; without them, the call has its own.

    Raises:
        UsageError: the call is wrong (exit 2); nothing was written.
        RefusedError: the source can't be taken, or no method made an artifact of it (exit 3); nothing was
        written.
        SystemFault: without a full disk, or the like, it might have been proven (exit 3); nothing was
        written.
    """
    _check_call(request, target, force)
    source = resolve(request)
    with writer.claim(target, force=force):
        return prepare_source(
            request, source, target, private=private_modules(source), force=force, tell=tell, workers=workers
        )


def prepare_live(
    request: Request, module: Any, example: Any, target: Path, *, force: bool, tell: Tell
) -> Manifest | None:
    """:func:`prepare` for a live object, surveyed and exported in this process; None where another rank does
    it.
    """
    _check_call(request, target, force)
    if request.weights or request.factory_args:
        raise UsageError(
            "weights and factory arguments go with a factory",
            seen=type(module).__name__,
            next="load the weights into the module first",
        )
    backend, kind = live_backend(module)
    adopted = importlib.import_module(backend.live).adopted
    with adopted(module, example) as taken:
        if taken is None:
            return None
        key, private = taken
        with writer.claim(target, force=force):
            return prepare_source(
                request, Source(kind=kind.name, path=key), target, private=private, force=force, tell=tell
            )


def _check_call(request: Request, target: Path, force: bool) -> None:
    writer.check_target(target, force=force)
    if request.mnnconvert and not (
        os.path.isfile(request.mnnconvert) and os.access(request.mnnconvert, os.X_OK)
    ):
        raise UsageError(
            "--mnnconvert is no executable file",
            seen=request.mnnconvert,
            next="give the path of a MNNConvert program",
        )
    known = [rule.name for rule in RULES if rule.rewrite is not None]
    for name in request.repairs or ():
        if name not in known:
            raise UsageError(
                "--repair names no rule that repairs", seen=name, next=f"choose from: {', '.join(known)}"
            )


def prepare_source(
    request: Request,
    source: Source,
    target: Path,
    *,
    private: list[str],
    force: bool,
    tell: Tell,
    workers: Workers | None = None,
) -> Manifest:
    """:func:`prepare` for a source that is resolved; *private* are the user's modules that the artifact must
    do without.
    """
    steps = steps_of(source.kind)
    live = kind_of(source.kind).role is Role.LIVE
    if reason := why_streamed(request, source):
        return prepare_streamed(
            request, source, steps, reason, target, private=private, force=force, tell=tell
        )
    attempts = steps.attempts(request.to, request.method, request.opset, request.tflite_precision)
    with contextlib.ExitStack() as stack:
        given, workers = workers, workers or stack.enter_context(Workers(request.limits))
        if live:
            workers.keep_here(steps.worker)
        workers.warm(steps.worker)
        artifact = ARTIFACTS[attempts[0].target]
        repairing = [REPAIR.worker] if artifact.by_rules and request.repairs != () else []
        workers.warm_in_turn([artifact.run.worker, CONVERTER, RUNTIME, *repairing])
        report.compile_early()
        if not live:
            _load_once(workers, steps, source, request.wants.samples, tell)
        tell("running the reference on the source, exporting beside it")
        job = SurveyJob(source=source, wants=request.wants, directory=str(workers.directory("survey")))
        surveying = workers.submit(steps.survey, job)
        maker = Maker(
            workers,
            mnnconvert=request.mnnconvert,
            tell=tell,
            precision=request.precision,
            static=request.static,
            repairs=request.repairs,
        )
        export = start_export(workers, steps, source, request.wants, attempts[0], request.tflite_precision)
        either: list[Future[Any]] = [surveying, export]
        wait(either, return_when=FIRST_COMPLETED)
        made = (
            None if surveying.done() else maker.make(attempts[0], export)
        )  # its conversion need not wait for the survey
        try:
            survey = surveying.result().value
        except StepFailed as failure:
            raise refusal(failure) from failure
        _require_one_size(request, survey)
        judge = Judge(
            survey, source, maker, steps=steps, private=private, wants=request.wants, metrics=request.metrics
        )
        history: list[Tried] = []
        for attempt in attempts:
            if skip(attempt, request, survey, history):
                continue
            if history:
                export, made = (
                    start_export(workers, steps, source, request.wants, attempt, request.tflite_precision),
                    None,
                )
            history.append(judge.judge(made or maker.make(attempt, export)))
            name_baked(workers, steps, source, request.wants, survey, history[-1])
            tell(outcome(history[-1]))
            if history[-1].repairable() and not hopeless(survey):
                repaired = judge.repair(history[-1])
                if repaired is not None:
                    history.append(repaired)
                    tell(outcome(repaired))
            lost = hopeless(survey) or any(broken_promise(dim, survey) for dim in survey.signature.dims)
            if history[-1].verdict is Verdict.PROVEN or (
                history[-1].exported and lost and not improvable(survey, history[-1])
            ):
                break
        if all(tried.verdict is not Verdict.PROVEN for tried in history):
            workers.require_sound()
        best = choose(history)
        if best.verdict is not Verdict.PROVEN:
            for tried in history:
                judge.mnn.blame(tried)
        for tried in history:
            if tried is best or (tried.attempt.searches and best.verdict is not Verdict.PROVEN):
                name_wrong(workers, request, survey, tried, tell)
        tell("writing the bundle")
        if given is None:
            workers.dismiss()
        return write_bundle(request, source, steps, survey, history, best, target, force=force)


def _load_once(workers: Workers, steps: SourceSteps, source: Source, samples: str, tell: Tell) -> None:
    """Load the source in the worker that the survey and the exports are forked from, where that is safe."""
    if steps.load is None:
        return
    tell("loading the source")
    try:
        job = LoadJob(source=source, samples=samples)
        loaded = workers.submit(steps.load, job, here=True).result().value
    except StepFailed as failure:
        raise refusal(failure) from failure
    if loaded.threads > 1:  # a process with threads must not be forked: every step loads for itself
        workers.renew(steps.worker)


def _require_one_size(request: Request, survey: Survey) -> None:
    """A static model has one size: every dimension must be given one."""
    if request.static and survey.signature.dims:
        names = ", ".join(d.name for d in survey.signature.dims)
        raise UsageError(
            "--static takes one size for every dimension",
            seen=f"open: {names}",
            next="fix them with --input 'x=float32[1,3,224,224]'",
        )


def outcome(tried: Tried) -> str:
    """One line for the progress."""
    repaired = f" with {', '.join(f.rule for f in tried.repairs)}" if tried.repairs else ""
    return f"{tried.attempt.method}{repaired}: {tried.verdict.value}" + (
        f" ({tried.reason})" if tried.reason else ""
    )


def skip(attempt: ExportRecipe, request: Request, survey: Survey, history: list[Tried]) -> bool:
    """Whether an attempt would say nothing new.

    Other opsets are tried only where MNN alone stood in the way of the earlier one; scripting only for a
    source that decides on data; another format is not tried where the first gave an artifact and no converter
    for the other is at hand.
    """
    if attempt.searches:
        there = [
            t
            for t in history
            if t.exported
            and t.attempt.method in (attempt.method, "copy")
            and t.attempt.target == attempt.target
        ]
        hopeful = [
            t
            for t in there
            if t.repairable()
            and (t.status(catalog.MNN_CONVERT) is Status.FAILED or not request.precision.reduced)
        ]
        if not hopeful or attempt.opset in {t.opset for t in there}:
            return True
    if attempt.for_decisions and not survey.decides:
        return True
    other = bool(history) and attempt.target != history[0].attempt.target
    return (
        other
        and not ARTIFACTS[attempt.target].packaged
        and not request.mnnconvert
        and any(t.exported for t in history)
    )


def hopeless(survey: Survey) -> bool:
    """Whether the source alone keeps every attempt from being proven."""
    return any(c.required and c.status is not Status.PASSED for c in survey.checks)


def improvable(survey: Survey, tried: Tried) -> bool:
    """Whether another attempt may still be unproven where *tried* differs: the source lacks a check, and
    fails none.
    """
    lacking = all(c.status is not Status.FAILED for c in survey.checks if c.required)
    return lacking and tried.verdict is not Verdict.UNPROVEN


def choose(history: list[Tried]) -> Tried:
    """The best attempt: the strongest verdict, then the earliest.

    Raises RefusedError when none made an artifact.
    """
    made = [t for t in history if t.exported is not None]
    if not made:
        raise RefusedError(
            "no method made an artifact of this source",
            seen="; ".join(f"{t.attempt.method}: {t.reason}" for t in history),
            next="mend the model where the messages point, or choose a method with --method",
        )
    return min(made, key=lambda t: RANK[t.verdict])


def refusal(failure: StepFailed) -> Exception:
    """The survey failed: the user's error where there is one, else how the source's process died."""
    if failure.error is not None:
        return failure.error
    if failure.unable:
        return RefusedError(
            f"the reference run {failure.reason}",
            seen=failure.log[-500:],
            next="raise --timeout or --memory, or give smaller inputs with --input and --dim",
        )
    if failure.fate == "crash":
        return RefusedError(
            f"the source's own framework {failure.reason}",
            seen=failure.log[-2000:],
            next="run the model on its own first",
        )
    return internal(failure, "the reference run failed")
