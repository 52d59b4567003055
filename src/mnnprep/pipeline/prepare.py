"""`prepare`: source to bundle. The stages in order; the first attempt that is proven wins."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

from mnnprep.bundle import writer
from mnnprep.bundle.manifest import Manifest
from mnnprep.core.evidence import Status, Verdict
from mnnprep.core.messages import Source, Survey, SurveyJob
from mnnprep.core.request import Request
from mnnprep.errors import RefusedError, UsageError
from mnnprep.formats.plans import ARTIFACTS, Attempt, plan_of
from mnnprep.isolate.host import StepFailed, internal
from mnnprep.pipeline.attempt import MNN_PRELOAD, Judge, Tried, start_export
from mnnprep.pipeline.record import write_bundle
from mnnprep.pipeline.resolve import private_modules, resolve
from mnnprep.pipeline.workers import Workers

Tell = Callable[[str], None]
RANK = {Verdict.PROVEN: 0, Verdict.UNPROVEN: 1, Verdict.DIFFERS: 2, Verdict.REFUSED: 3}


def prepare(request: Request, target: Path, *, force: bool = False, tell: Tell = lambda _: None) -> Manifest:
    """Prepare ``request.source`` and write the bundle to *target*.

    Returns the bundle's manifest, whatever the verdict; the bundle holds the best attempt.

    Raises:
        UsageError: the call is wrong (exit 2); nothing was written.
        RefusedError: the source can't be taken, or no method made an artifact of it (exit 3); nothing was written.
    """
    writer.check_target(target, force=force)
    if request.mnnconvert and not (os.path.isfile(request.mnnconvert) and os.access(request.mnnconvert, os.X_OK)):
        raise UsageError("--mnnconvert is no executable file", seen=request.mnnconvert, next="give the path of a MNNConvert program")
    source = resolve(request)
    return prepare_source(request, source, target, force=force, tell=tell)


def prepare_source(request: Request, source: Source, target: Path, *, force: bool, tell: Tell) -> Manifest:
    """:func:`prepare` for a source that is resolved."""
    plan = plan_of(source.kind)
    attempts = plan.attempts(request.to, request.method, request.opset, request.precision)
    with Workers(request.limits) as workers:
        for preload in dict.fromkeys([plan.preload, ARTIFACTS[attempts[0].target].preload, MNN_PRELOAD]):
            workers.warm(preload)
        tell("running the reference on the source, exporting beside it")
        surveying = workers.submit(
            plan.preload, plan.survey, SurveyJob(source=source, wants=request.wants, directory=str(workers.directory("survey"))), Survey
        )
        first_export = start_export(workers, plan, source, request.wants, attempts[0], request.precision)
        try:
            survey = surveying.result().value
        except StepFailed as failure:
            raise refusal(failure) from failure
        judge = Judge(workers, survey, source, private=private_modules(source), mnnconvert=request.mnnconvert, tell=tell)
        history: list[Tried] = []
        for number, attempt in enumerate(attempts):
            if skip(attempt, request, history):
                continue
            tell(f"attempt {len(history) + 1}: {attempt.method}" + (f" from opset {attempt.opset}" if attempt.opset else ""))
            export = first_export if number == 0 else start_export(workers, plan, source, request.wants, attempt, request.precision)
            history.append(judge.judge(attempt, export, weights_in_file=plan.weights_in_file))
            tell(f"{attempt.method}: {history[-1].verdict.value}" + (f" ({history[-1].reason})" if history[-1].reason else ""))
            if history[-1].verdict is Verdict.PROVEN or (history[-1].exported and hopeless(survey)):
                break
        best = choose(history)
        tell("writing the bundle")
        return write_bundle(request, source, plan, survey, history, best, target, force=force, scratch=workers.scratch)


def skip(attempt: Attempt, request: Request, history: list[Tried]) -> bool:
    """Whether an attempt would say nothing new.

    A later opset is not tried where the exporter went there already, or where the artifact was wrong before
    MNN saw it; another format is not tried without ``--to`` where the first gave an artifact and no converter for the other is at hand.
    """
    for tried in history:
        same = tried.attempt.method == attempt.method and tried.attempt.target == attempt.target
        if same and (tried.opset >= attempt.opset or not tried.exported or tried.wrong_already()):
            return True
    other = bool(history) and attempt.target != history[0].attempt.target
    return other and not ARTIFACTS[attempt.target].packaged and not request.mnnconvert and any(t.exported for t in history)


def hopeless(survey: Survey) -> bool:
    """Whether the source alone keeps every attempt from being proven."""
    return any(c.required and c.status is not Status.PASSED for c in survey.checks)


def choose(history: list[Tried]) -> Tried:
    """The best attempt: the strongest verdict, then the earliest.

    Raises RefusedError when none made an artifact.
    """
    made = [t for t in history if t.exported is not None]
    if not made:
        raise RefusedError(
            "no method made an artifact of this source", seen="; ".join(f"{t.attempt.method}: {t.reason}" for t in history),
            next="mend the model where the messages point, or choose a method with --method",
        )  # fmt: skip
    return min(made, key=lambda t: RANK[t.verdict])


def refusal(failure: StepFailed) -> Exception:
    """The survey failed: the user's error where there is one, else how the source's process died."""
    if failure.error is not None:
        return failure.error
    if failure.fate in ("time", "memory"):
        return RefusedError(
            f"the reference run {failure.reason}",
            seen=failure.log[-500:],
            next="raise --timeout or --memory, or give smaller inputs with --input and --dim",
        )
    if failure.fate == "crash":
        return RefusedError(f"the source's own framework {failure.reason}", seen=failure.log[-2000:], next="run the model on its own first")
    return internal(failure, "the reference run failed")
