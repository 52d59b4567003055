"""`compare`: two models of any two formats on the same cases, each untouched and in its own framework."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from functools import partial
from pathlib import Path

import msgspec
import numpy as np

from mnnprep.attempt.metrics import metric_checks
from mnnprep.attempt.noise import learn_noise
from mnnprep.commands.prepare import refusal
from mnnprep.commands.resolve import resolve
from mnnprep.comparison.outputs import compare_run
from mnnprep.comparison.tolerance import Array, Tolerance
from mnnprep.errors import RefusedError
from mnnprep.evidence import catalog
from mnnprep.evidence.check import Check, Status
from mnnprep.evidence.verdict import COMPARE, Verdict, verdict
from mnnprep.formats.backend import Option, Role, SourceSteps
from mnnprep.formats.factory import looks_like_factory
from mnnprep.formats.registry import kind_of, steps_of
from mnnprep.model.files import Arrays, file_ref, load_arrays, save_arrays
from mnnprep.model.messages import InputSpecs, Replayed, ReplayJob, RunResult, Source, Survey, SurveyJob
from mnnprep.model.metrics import Metric
from mnnprep.model.request import Limits, Request
from mnnprep.model.running import case_outputs
from mnnprep.text import Progress
from mnnprep.workers.failure import StepFailed, describe
from mnnprep.workers.pool import Workers
from mnnprep.workers.step import Step

MOST_ALIKE = 6  # outputs of one dtype and shape that are told apart by their values


class Comparison(msgspec.Struct, frozen=True, kw_only=True):
    """The result of comparing two models.

    ``inputs`` and ``outputs`` map the first model's names to the second's; ``matched`` says how each output
    was matched (``name``, ``shape``, ``values``, ``place``).
    """

    first: str
    second: str
    verdict: Verdict
    inputs: dict[str, str]
    outputs: dict[str, str]
    matched: dict[str, str]
    evidence: list[Check]


def compare(
    first: str,
    second: str,
    *,
    wants: InputSpecs | None = None,
    limits: Limits | None = None,
    trust: bool = False,
    signature: str = "",
    outputs: tuple[str, ...] = (),
    metrics: tuple[Metric, ...] = (),
    tell: Progress = lambda _: None,
) -> Comparison:
    """Run *first* as the reference on cases made for it, then *second* on the same inputs.

    ``proven``: every output agrees within the tolerance on every case, and the inputs move the outputs;
    ``differs``: one does not; ``unproven``: the cases prove nothing. A factory with a checkpoint is written
    ``FACTORY+CHECKPOINT``.

    Raises:
        UsageError, RefusedError: as `prepare` for a source that can't be taken; inputs that can't be matched.
    """
    wants = wants or InputSpecs()
    sources = [_source(text, trust, signature, outputs) for text in (first, second)]
    steps = [steps_of(source.kind) for source in sources]
    if steps[1].replay is None:
        raise RefusedError(
            "the second model can't be run on given inputs",
            seen=sources[1].kind,
            next="give it first, and the other second",
        )
    with Workers(limits or Limits()) as workers:
        for one in steps:
            workers.warm(one.worker)
        tell("running the first model")
        survey = _survey(workers, steps[0], sources[0], wants)
        tell("running the second model on the same cases")
        replayed = _replay(workers, steps[1].replay, sources[1], wants, survey)
        learn = partial(learn_noise, workers, steps[0], sources[0], wants, survey)
        found = _judge(workers, survey, replayed, (sources[0].kind, sources[1].kind), metrics, learn)
        if found.verdict is not Verdict.PROVEN:
            workers.require_sound()
        return found


def _source(text: str, trust: bool, signature: str, outputs: tuple[str, ...]) -> Source:
    """The source that *text* names; ``--signature`` and ``--outputs`` go to those that can have them."""
    if not Path(text).exists():
        factory, plus, weights = text.partition("+")
        if plus and looks_like_factory(factory):
            return resolve(Request(source=factory, weights=weights, trust=trust))
    plain = resolve(Request(source=text, trust=trust))
    options = kind_of(plain.kind).options
    if signature and Option.SIGNATURE in options:
        return msgspec.structs.replace(plain, signature=signature)
    return msgspec.structs.replace(plain, outputs=outputs) if outputs and Option.OUTPUTS in options else plain


def _survey(workers: Workers, steps: SourceSteps, source: Source, wants: InputSpecs) -> Survey:
    try:
        job = SurveyJob(source=source, wants=wants, directory=str(workers.directory("survey")))
        return workers.run(steps.survey, job)
    except StepFailed as failure:
        raise refusal(failure) from failure


def _replay(
    workers: Workers, replay: Step[ReplayJob, Replayed], source: Source, wants: InputSpecs, survey: Survey
) -> Replayed:
    own = wants if kind_of(source.kind).role is Role.FACTORY else InputSpecs()
    job = ReplayJob(
        source=source,
        wants=own,
        cases=survey.cases,
        signature=survey.signature,
        directory=str(workers.directory("replay")),
    )
    try:
        return workers.run(replay, job)
    except StepFailed as failure:
        if failure.error is not None:
            raise failure.error from failure
        raise RefusedError(
            f"the second model {describe(failure)}", seen=failure.log[-500:], next="run it on its own first"
        ) from failure


def _judge(
    workers: Workers,
    survey: Survey,
    replayed: Replayed,
    kinds: tuple[str, str],
    metrics: tuple[Metric, ...],
    learn: Callable[[Check], bool],
) -> Comparison:
    tolerance = Tolerance(noise=survey.noise, steps=survey.steps)
    case = next((c for c in survey.cases if str(c.index) in replayed.ran.outputs), None)
    names: dict[str, str] = {}
    matched: dict[str, str] = {}
    if case is not None:
        names, matched = match_outputs(
            case_outputs(case.file.path), load_arrays(replayed.ran.outputs[str(case.index)].path)
        )
    ran = _renamed(replayed.ran, names, workers.directory("renamed"))
    check = compare_run(catalog.COMPARE, survey.cases, ran, tolerance, {})
    if check.status is Status.FAILED and learn(check):
        check = compare_run(catalog.COMPARE, survey.cases, ran, tolerance, {})
    evidence = [*(c for c in survey.checks if COMPARE.fits(c.check)), check]
    evidence += metric_checks(workers, metrics, survey.cases, {"second": ran}, survey.checks)
    return Comparison(
        first=kinds[0],
        second=kinds[1],
        verdict=verdict(evidence, COMPARE),
        inputs=replayed.inputs,
        outputs=names,
        matched=matched,
        evidence=evidence,
    )


def match_outputs(ours: Arrays, theirs: Arrays) -> tuple[dict[str, str], dict[str, str]]:
    """Match *theirs* to *ours*, by name, else by dtype and shape; among those alike, by the values.

    The result says for each by what it was matched.

    Telling alike outputs apart by their values can't hide a difference: the assignment that fits best is
    still compared. If the counts differ, what has no partner is left out; the comparison misses it.
    """
    names = {n: n for n in ours if n in theirs}
    matched = dict.fromkeys(names, "name")
    left, right = [n for n in ours if n not in names], [n for n in theirs if n not in names.values()]
    groups = dict.fromkeys((ours[n].dtype.name, ours[n].shape) for n in left)
    for dtype, shape in groups:
        mine = [n for n in left if (ours[n].dtype.name, ours[n].shape) == (dtype, shape)]
        others = [n for n in right if (theirs[n].dtype.name, theirs[n].shape) == (dtype, shape)]
        if len(mine) == len(others) <= MOST_ALIKE:
            best = min(
                itertools.permutations(others),
                key=lambda order: sum(_gap(ours[a], theirs[b]) for a, b in zip(mine, order, strict=True)),
            )
            names |= dict(zip(mine, best, strict=True))
            matched |= dict.fromkeys(mine, "shape" if len(mine) == 1 else "values")
    rest = [n for n in right if n not in names.values()]
    for mine_left, other in zip([n for n in left if n not in names], rest, strict=False):
        names[mine_left], matched[mine_left] = other, "place"
    return {n: names[n] for n in ours if n in names}, {n: matched[n] for n in ours if n in names}


def _gap(a: Array, b: Array) -> float:
    return float(np.nan_to_num(np.abs(a.astype(np.float64) - b.astype(np.float64))).sum())


def _renamed(ran: RunResult, names: dict[str, str], directory: Path) -> RunResult:
    """Return the run with its outputs called as the first model calls them.

    Those that it has beyond them keep their own names.
    """
    outputs = {}
    for key, ref in ran.outputs.items():
        arrays = load_arrays(ref.path)
        path = directory / f"{key}.npz"
        beyond = {n: a for n, a in arrays.items() if n not in names.values()}
        save_arrays(path, {ours: arrays[theirs] for ours, theirs in names.items()} | beyond)
        outputs[key] = file_ref(path)
    return RunResult(outputs=outputs, errors=ran.errors)
