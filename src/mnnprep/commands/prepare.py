"""`prepare`: source to bundle. The stages in order; the first attempt that is proven wins."""

from __future__ import annotations

import contextlib
import importlib
import math
import os
import time
from collections import deque
from concurrent.futures import FIRST_COMPLETED, Future, wait
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec

from mnnprep.attempt.builder import ArtifactBuilder, start_export
from mnnprep.attempt.results import AttemptResult, Diagnosis, Made, NotMade
from mnnprep.attempt.verifier import Verifier
from mnnprep.bundle import report, writer
from mnnprep.bundle.manifest import Manifest
from mnnprep.commands.attempt_order import choose, finished, hopeless, skip
from mnnprep.commands.record import write_bundle
from mnnprep.commands.resolve import private_modules, resolve
from mnnprep.commands.streamed import prepare_streamed, why_streamed
from mnnprep.diagnose.conversion_failure import diagnose_conversion
from mnnprep.diagnose.first_wrong_node import diagnose_comparison
from mnnprep.diagnose.frozen_dimension import diagnose_dimensions
from mnnprep.errors import RefusedError, UsageError
from mnnprep.evidence.verdict import Verdict
from mnnprep.formats.backend import ExportRecipe, Role, SourceSteps
from mnnprep.formats.registry import ARTIFACTS, kind_of, live_backend, steps_of
from mnnprep.mnn.worker import CONVERTER, RUNTIME
from mnnprep.model.messages import Exported, LoadJob, Source, Survey, SurveyJob
from mnnprep.model.request import Request
from mnnprep.repair.steps import REPAIR
from mnnprep.repair.table import RULES
from mnnprep.targets import run as targets
from mnnprep.targets.environment import engine_workers, expand
from mnnprep.text import Progress
from mnnprep.workers.failure import StepFailed, internal
from mnnprep.workers.host import Reply
from mnnprep.workers.pool import Workers


def prepare(
    request: Request,
    target: Path,
    *,
    force: bool = False,
    tell: Progress = lambda _: None,
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
    request: Request, module: Any, example: Any, target: Path, *, force: bool, tell: Progress
) -> Manifest | None:
    """:func:`prepare` for a live object, surveyed and exported in this process.

    Returns None if another rank does it.
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
            "--mnnconvert does not name an executable file",
            seen=request.mnnconvert,
            next="give the path of a MNNConvert program",
        )
    known = [rule.name for rule in RULES if rule.rewrite is not None]
    for name in request.repairs or ():
        if name not in known:
            raise UsageError(
                "--repair does not name a repair rule", seen=name, next=f"choose from: {', '.join(known)}"
            )


def prepare_source(
    request: Request,
    source: Source,
    target: Path,
    *,
    private: list[str],
    force: bool,
    tell: Progress,
    workers: Workers | None = None,
) -> Manifest:
    """:func:`prepare` for a source that is resolved.

    *private* are the user's modules that the artifact must do without.
    """
    request = msgspec.structs.replace(request, targets=expand(request.targets, request.engine))
    steps = steps_of(source.kind)
    if reason := why_streamed(request, source):
        return prepare_streamed(
            request, source, steps, reason, target, private=private, force=force, tell=tell
        )
    recipes = steps.attempts(request.to, request.method, request.opset, request.tflite_precision)
    with contextlib.ExitStack() as stack:
        shared = workers is not None
        workers = workers or stack.enter_context(
            Workers(request.limits, replaced=engine_workers(request.engine))
        )
        run = _Run(request, source, steps, workers, tell)
        run.warm(recipes[0])
        survey, first = run.survey_and_first(recipes[0])
        results = run.attempts(recipes, survey, first, private)
        if all(result.verdict is not Verdict.PROVEN for result in results):
            workers.require_sound()
        best = choose(results)
        results, best = run.diagnosed(survey, results, best)
        tell("writing the bundle")
        if not shared:
            workers.shutdown()
        return write_bundle(request, source, steps, best.survey or survey, results, best, target, force=force)


class _Run:
    """The stages of one `prepare`, which share its workers."""

    def __init__(
        self, request: Request, source: Source, steps: SourceSteps, workers: Workers, tell: Progress
    ) -> None:
        self.request, self.source, self.steps = request, source, steps
        self.workers, self.tell = workers, tell
        self.builder = ArtifactBuilder(workers, request, tell)

    def warm(self, first: ExportRecipe) -> None:
        """Start the workers in the order in which they are needed, and load the source once."""
        live = kind_of(self.source.kind).role is Role.LIVE
        if live:
            self.workers.in_parent(self.steps.worker)
        self.workers.warm(self.steps.worker)
        artifact = ARTIFACTS[first.target]
        repairing = [REPAIR.worker] if artifact.by_rules and self.request.repairs != () else []
        there = targets.workers_of(self.request.targets)
        self.workers.warm_in_turn([artifact.run.worker, CONVERTER, RUNTIME, *repairing, *there])
        report.compile_early()
        if not live:
            _load_once(self.workers, self.steps, self.source, self.request.wants.samples, self.tell)

    def export(self, recipe: ExportRecipe) -> Future[Reply[Exported]]:
        request = self.request
        return start_export(
            self.workers, self.steps, self.source, request.wants, recipe, request.tflite_precision
        )

    def survey_and_first(self, recipe: ExportRecipe) -> tuple[Survey, Made | NotMade]:
        """The survey, and beside it what the first recipe makes: its conversion need not wait."""
        self.tell("running the reference on the source, exporting beside it")
        directory = str(self.workers.directory("survey"))
        job = SurveyJob(source=self.source, wants=self.request.wants, directory=directory)
        surveying, export = self.workers.submit(self.steps.survey, job), self.export(recipe)
        either: list[Future[Any]] = [surveying, export]
        wait(either, return_when=FIRST_COMPLETED)
        made = None if surveying.done() else self.builder.build(recipe, export)
        try:
            survey = surveying.result().value
        except StepFailed as failure:
            raise refusal(failure) from failure
        _require_one_size(self.request, survey)
        return survey, made or self.builder.build(recipe, export)

    def attempts(
        self, recipes: list[ExportRecipe], survey: Survey, first: Made | NotMade, private: list[str]
    ) -> list[AttemptResult]:
        """The results of the recipes that are tried, in order, up to the first that is proven."""
        verifier = Verifier(
            survey,
            self.source,
            self.builder,
            steps=self.steps,
            private=private,
            wants=self.request.wants,
            metrics=self.request.metrics,
        )
        results: list[AttemptResult] = []
        until, budget = math.inf, self.request.time_budget
        waiting = deque(recipes)
        while waiting:
            recipe = waiting.popleft()
            if skip(recipe, self.request, survey, results):
                continue
            if time.monotonic() > until:
                reason = f"not tried: the {budget:g} s for further attempts are over (--time-budget)"
                results.append(AttemptResult(recipe, unmade=reason))
                break
            if results and recipe.searches:
                self._locate(results, survey)
            made = self.builder.build(recipe, self.export(recipe)) if results else first
            results.append(self._verified(verifier, survey, made))
            if results[-1].repairable and not hopeless(survey):
                repaired = verifier.repair(results[-1])
                if repaired is not None:
                    results.append(repaired)
                    self.tell(outcome(repaired))
            if results[-1].wrong_in_half and (low := verifier.repair_for_low(results[-1])) is not None:
                results.append(low)
                self.tell(outcome(low))
            if finished(survey, results[-1]):
                break
            if recipe.traces and not recipe.at and (at := results[-1].sizes_frozen_out(survey.cases)):
                waiting.appendleft(replace(recipe, at=at))
            until = min(until, time.monotonic() + (budget or math.inf))
        return results

    def _locate(self, results: list[AttemptResult], survey: Survey) -> None:
        """Find the node that is wrong in the last of *results*, before other opsets are tried.

        They can't help if they have the same node.
        """
        last = results[-1]
        if last.located or last.artifact is None:
            return
        found = diagnose_comparison(self.workers, self.request, survey, last, self.tell)
        results[-1] = replace(last.explained(found), located=True)
        for diagnosis in found:
            if diagnosis.alone:
                self.builder.blame(diagnosis.subject, last.artifact.original)

    def _verified(self, verifier: Verifier, survey: Survey, made: Made | NotMade) -> AttemptResult:
        result = verifier.verify(made)
        frozen = diagnose_dimensions(
            self.workers, self.steps, self.source, self.request.wants, survey, result
        )
        result = result.explained(frozen)
        self.tell(outcome(result))
        return result

    def diagnosed(
        self, survey: Survey, results: list[AttemptResult], best: AttemptResult
    ) -> tuple[list[AttemptResult], AttemptResult]:
        """*results* and the *best* of them with what stands behind their failed checks."""
        proven = best.verdict is Verdict.PROVEN
        found: dict[int, list[Diagnosis]] = {}
        if not proven:
            found = {n: diagnose_conversion(self.builder, result) for n, result in enumerate(results)}
        if not best.located:
            at = results.index(best)
            named = diagnose_comparison(self.workers, self.request, survey, best, self.tell)
            found[at] = found.get(at, []) + named
        explained = [result.explained(found.get(n, [])) for n, result in enumerate(results)]
        return explained, explained[results.index(best)]


def _load_once(workers: Workers, steps: SourceSteps, source: Source, samples: str, tell: Progress) -> None:
    """Load the source in the worker that the survey and the exports are forked from, if that is safe."""
    if steps.load is None:
        return
    tell("loading the source")
    try:
        job = LoadJob(source=source, samples=samples)
        loaded = workers.submit(steps.load, job, in_worker=True).result().value
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


def outcome(result: AttemptResult) -> str:
    """One line for the progress."""
    rules = ", ".join(repair.rule for repair in result.repairs)
    told = f"{result.recipe.method}{f' with {rules}' if rules else ''}: {result.verdict.value}"
    return told + (f" ({result.reason})" if result.reason else "")


def refusal(failure: StepFailed) -> Exception:
    """The survey failed: the user's error if there is one, else how the source's process died."""
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
