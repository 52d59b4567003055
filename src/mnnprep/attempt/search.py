"""The search for inputs on which an attempt that passed so far is wrong after all.

Faults that show for some values alone pass random inputs.  So, once an attempt's artifact and converted model
have kept the tolerance in every case, further inputs are made, within the range of each, that take the values
inside the model as far as they get (see :mod:`mnnprep.reference.widening`) or try what is odd (see
:mod:`mnnprep.reference.proposals`).  The source and MNN run on them, and the artifact if MNN leaves the
tolerance.  An input on which one of these differs, though the source itself is steady there, becomes a case
as any other.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import islice

import msgspec
import numpy as np

from mnnprep.attempt.part_runs import RunOn, isolated, joined, only
from mnnprep.attempt.results import Artifact
from mnnprep.attempt.steadiness import Steadiness, Steady
from mnnprep.comparison.outputs import compared
from mnnprep.comparison.tolerance import Tolerance, compare_outputs, peak_of
from mnnprep.evidence import catalog
from mnnprep.evidence.check import Check, Figure, OutputError, Status
from mnnprep.evidence.row import Row
from mnnprep.formats.backend import SourceSteps
from mnnprep.mnn.run import ACCURATE_HINTS, NARROWED_OUTPUTS, ROUGH, MnnRunResult
from mnnprep.model.files import Arrays, file_ref, load_arrays, save_arrays
from mnnprep.model.messages import CaseFile, InputSpecs, ReplayJob, RunResult, Source, Survey
from mnnprep.model.net import any_ranks
from mnnprep.model.running import case_inputs, case_outputs
from mnnprep.model.searching import ORIGIN_SEARCHED, Searched, SearchJob
from mnnprep.reference.proposals import proposals
from mnnprep.reference.widening import ELEMENT, budget, written_case
from mnnprep.workers.failure import StepFailed
from mnnprep.workers.pool import Workers

MOST_SUSPECTS = 6  # inputs of each side that are looked at closely
SHARED = 64  # elements of an input for which a weight is used once, in a model whose work is not counted
LEAST = 3.0  # tolerances: inputs made to be extreme may be somewhat further off than ordinary ones

RunMnn = Callable[[list[CaseFile], dict[str, int]], MnnRunResult]


@dataclass(frozen=True)
class Looked:
    """The outcome of a search.

    ``survey`` has the case that was found as its last; ``case`` is that, None if none was found. ``artifact``
    and ``mnn`` ran on it. ``numbers`` are for the check of MNN. With ``rough``, MNN's default settings were
    off by so many tolerances where accurate ones keep it, and all is to be run with these.
    """

    survey: Survey
    numbers: dict[str, Figure] = field(default_factory=dict)
    case: CaseFile | None = None
    artifact: RunResult = field(default_factory=RunResult)
    mnn: RunResult = field(default_factory=RunResult)
    rough: float | None = None

    def named(self, check: Check) -> Check:
        """*check*, its reason with the origin of the case that was found, if it fails."""
        if self.case is None or check.status is not Status.FAILED:
            return check
        reason = f"{check.reason}; the inputs of case {self.case.index} were {self.case.origin}"
        return msgspec.structs.replace(check, reason=reason)


@dataclass(frozen=True)
class Tolerances:
    """The tolerances of the comparison of the artifact, and of MNN's, with the source."""

    artifact: Tolerance
    mnn: Tolerance


@dataclass(frozen=True)
class Side:
    """The artifact, or MNN: the row of its check, its runs on the cases so far and on the new inputs."""

    row: Row
    tolerance: Tolerance
    before: RunResult
    now: RunResult
    usual: dict[str, float]  # the least that the largest number of each output is in the cases so far

    @property
    def narrowing(self) -> dict[str, str]:
        """The dtypes that it may give in place of others."""
        return NARROWED_OUTPUTS if self.row is catalog.MNN_COMPARE else {}


@dataclass(frozen=True)
class Suspect:
    """An input on which a ``side`` leaves the tolerance of the other cases."""

    side: Side
    case: CaseFile
    errors: tuple[OutputError, ...]  # none if it did not run

    @property
    def excess(self) -> float:
        """By how many times the tolerance numbers are off; infinite where more than numbers are."""
        excesses = [e.excess for e in self.errors]
        return max((float("inf") if e is None else e for e in excesses), default=float("inf"))


class Search:
    """Searches for one source. *run_artifact* and *run_mnn* run the two sides of the attempt."""

    def __init__(
        self,
        workers: Workers,
        steps: SourceSteps,
        source: Source,
        wants: InputSpecs,
        run_artifact: RunOn,
        run_mnn: RunMnn,
    ) -> None:
        self._workers = workers
        self._steps = steps
        self._source = source
        self._wants = wants
        self._run_artifact = run_artifact
        self._run_mnn = run_mnn

    def look(
        self,
        survey: Survey,
        artifact: Artifact,
        hints: dict[str, int],
        tolerances: Tolerances,
        ran: RunResult,
        mnn: RunResult,
    ) -> Looked:
        """Search, and look closely at what leaves the tolerance.

        *ran* and *mnn* are the runs of the artifact and of MNN on the cases so far, the latter with *hints*.
        """
        try:
            searched = self._candidates(survey, artifact)
            with ThreadPoolExecutor(1) as pool:
                there = pool.submit(self._mnn, searched.cases, hints)
                cases = self._with_references(survey, searched.cases)
            usual = usual_peaks(survey.cases)
            sides = [Side(catalog.MNN_COMPARE, tolerances.mnn, mnn, there.result(), usual)]
            suspects = suspected(sides[0], cases)[:MOST_SUSPECTS]
            if suspects:  # MNN has the artifact's nodes: it is as wrong as that, if it is
                now = self._artifact(cases)
                sides.insert(0, Side(catalog.ARTIFACT_COMPARE, tolerances.artifact, ran, now, usual))
                suspects = suspected(sides[0], cases)[:MOST_SUSPECTS] + suspects
        except StepFailed:  # the attempt has passed already: a limit that is met here says nothing of it
            return Looked(survey, {"searched": 0})
        numbers: dict[str, Figure] = {"searched": len(cases)}
        if searched.values:
            numbers |= {"values_widened": searched.widened, "values_watched": searched.values}
        rough, cleared = self._in_accurate_settings(suspects, hints)
        if rough is not None:
            return Looked(survey, numbers, rough=rough)
        found = self._confirmed(survey, artifact, [s for s in suspects if s not in cleared])
        if found is None:
            return Looked(survey, numbers)
        extended, suspect, case = found
        artifact_run, mnn_run = (only(side.now, suspect.case.index, case.index) for side in sides)
        return Looked(extended, numbers, case, artifact_run, mnn_run)

    def _artifact(self, cases: list[CaseFile]) -> RunResult:
        return isolated(self._run_artifact, cases, "the artifact's runtime")

    def _mnn(self, cases: list[CaseFile], hints: dict[str, int]) -> RunResult:
        return isolated(lambda some: self._run_mnn(some, hints), cases, "MNN's runtime")

    def _candidates(self, survey: Survey, artifact: Artifact) -> Searched:
        """Inputs of the size of the survey's first case, by the search of *artifact*'s format, if any."""
        directory = self._workers.directory("searched")
        first = survey.cases[0]
        if artifact.format.search is not None:
            job = SearchJob(
                model=artifact.model,
                cases=[case for case in survey.cases if case.dims == first.dims],
                signature=survey.signature,
                seed=self._wants.seed,
                directory=str(directory),
            )
            return self._workers.run(artifact.format.search, job)
        specs, seed = survey.signature.inputs, self._wants.seed
        elements = sum(math.prod(spec.sizes(first.dims)) for spec in specs)
        _, count = budget(survey.parameters * max(1, elements // SHARED) + ELEMENT * elements)
        made = islice(proposals(specs, first.dims, seed, ()), count)
        cases = [
            written_case(directory, number, f"{ORIGIN_SEARCHED}{seed}: {name}", first.dims, arrays)
            for number, (name, arrays) in enumerate(made)
        ]
        return Searched(cases=cases)

    def _with_references(self, survey: Survey, cases: list[CaseFile]) -> list[CaseFile]:
        """*cases* with the source's outputs; without those that it refuses, or has no finite numbers for."""
        directory = self._workers.directory("searched")
        found = []
        for case, outputs in self._replayed(survey, cases):
            if all(np.isfinite(a).all() for a in outputs.values() if a.dtype.kind == "f"):
                named = {f"outputs/{name}": array for name, array in outputs.items()}
                path = directory / f"{case.index}.npz"
                save_arrays(path, load_arrays(case.file.path) | named)
                found.append(msgspec.structs.replace(case, file=file_ref(path)))
        return found

    def _replayed(self, survey: Survey, cases: list[CaseFile]) -> list[tuple[CaseFile, Arrays]]:
        """The source's outputs on *cases*, those left out that it refuses.

        Raises:
            StepFailed: its process failed.
        """
        assert self._steps.replay is not None
        job = ReplayJob(
            source=self._source,
            wants=self._wants,
            cases=cases,
            signature=survey.signature,
            directory=str(self._workers.directory("searched")),
        )
        ran = self._workers.run(self._steps.replay, job).ran
        return [
            (case, load_arrays(ran.outputs[key].path))
            for case in cases
            if (key := str(case.index)) in ran.outputs
        ]

    def _in_accurate_settings(
        self, suspects: Sequence[Suspect], hints: dict[str, int]
    ) -> tuple[float | None, list[Suspect]]:
        """By how much MNN's default settings are off where accurate ones keep the tolerance; None if nowhere.

        And the suspects that accurate settings clear.
        """
        rough = [s for s in suspects if s.side.row is catalog.MNN_COMPARE and s.excess < ROUGH]
        if hints or not rough:
            return None, []
        cases = [s.case for s in rough]
        try:
            again = replace(rough[0].side, now=self._run_mnn(cases, ACCURATE_HINTS))
        except StepFailed:
            return None, []
        still = {s.case.index for s in suspected(again, cases)}
        cleared = [s for s in rough if s.case.index not in still]
        return max((s.excess for s in cleared), default=None), cleared

    def _confirmed(
        self, survey: Survey, artifact: Artifact, suspects: Sequence[Suspect]
    ) -> tuple[Survey, Suspect, CaseFile] | None:
        """The first of *suspects* that differs by the rules for every case, and by more than rounding.

        With it the survey that has its input as a case, and that case.
        """
        if not suspects:
            return None
        if any_ranks(artifact.operators):
            suspects = [s for s in suspects if not may_tie(s.case, survey.cases)]
        try:
            noise = self._noise(survey, [s.case for s in suspects])
            steadiness = Steadiness(self._workers, survey, artifact, partial(self._replayed, survey))
            for suspect in suspects:
                steady = steadiness.of(suspect.case, suspect.errors)
                floors = noise.get(suspect.case.index, {})
                if steady is Steady.DECIDED:  # what was measured is the decision, which exact numbers make
                    floors = dict.fromkeys(floors, 0.0)
                extended, case = with_case(survey, suspect.case, floors)
                if steady is not Steady.NO and differs(extended, case, suspect):
                    return extended, suspect, case
        except StepFailed:
            return None
        return None

    def _noise(self, survey: Survey, cases: list[CaseFile]) -> dict[int, dict[str, float]]:
        """How far the source's own rounding moves each floating output of *cases*, by their indexes."""
        assert self._steps.replay is not None
        job = ReplayJob(
            source=self._source,
            wants=self._wants,
            cases=cases,
            signature=survey.signature,
            directory=str(self._workers.directory("noise")),
            noise=True,
        )
        found = self._workers.run(self._steps.replay, job).ran.outputs
        return {
            int(key): {name: float(value) for name, value in load_arrays(file.path).items()}
            for key, file in found.items()
        }


def suspected(side: Side, cases: list[CaseFile]) -> list[Suspect]:
    """The *cases* in which a side leaves its tolerance, by LEAST times if numbers do; the plainest first.

    The noise is the largest of any case so far.
    """
    within = msgspec.structs.replace(side.tolerance, noise=side.tolerance.largest_noise())
    ran, found = side.now, list[Suspect]()
    for case in cases:
        key = str(case.index)
        if key not in ran.outputs:
            found.append(Suspect(side, case, ()))
            continue
        references = case_outputs(case.file.path)
        narrowed = {
            n: d
            for n, d in ran.narrowed.items()
            if n in references and side.narrowing.get(references[n].dtype.name) == d
        }
        actual = load_arrays(ran.outputs[key].path)
        errors = compare_outputs(case.index, references, actual, within, narrowed)
        if wrong := tuple(e for e in errors if e.problem and _clearly(e, within, side.usual)):
            found.append(Suspect(side, case, wrong))
    return found


def may_tie(case: CaseFile, usual: Sequence[CaseFile]) -> bool:
    """Whether the values that a net ranks may be equal for the inputs of *case*, so that no order is right.

    They are if an input repeats its numbers, or is larger than any *usual* one, which saturates scores.
    """
    peaks: dict[str, float] = {}
    for other in usual:
        for name, array in case_inputs(other.file.path).items():
            peaks[name] = max(peaks.get(name, 0.0), peak_of(array.reshape(-1)))
    return any(
        array.dtype.kind == "f"
        and array.size > 1
        and (np.unique(array).size * 2 < array.size or peak_of(array.reshape(-1)) > peaks[name])
        for name, array in case_inputs(case.file.path).items()
    )


def _clearly(error: OutputError, within: Tolerance, usual: dict[str, float]) -> bool:
    """Whether more than numbers differ, or these by LEAST tolerances, of an output as large as it usually is.

    An extreme input may leave an output near zero, where its last digits say nothing.
    """
    if error.excess is None or error.max_abs is None:
        return True
    floor = within.floor(error.output, 0, usual.get(error.output, 0.0))
    return error.excess >= LEAST and error.max_abs >= LEAST * floor


def usual_peaks(cases: Sequence[CaseFile]) -> dict[str, float]:
    """The least of the largest magnitudes that each floating output has in *cases*."""
    found: dict[str, float] = {}
    for case in cases:
        for name, array in case_outputs(case.file.path).items():
            if array.dtype.kind == "f" and array.size:
                peak = peak_of(array.reshape(-1))
                found[name] = min(peak, found.get(name, peak))
    return found


def differs(extended: Survey, case: CaseFile, suspect: Suspect) -> bool:
    """Whether the check of a suspect fails with its input as a *case* of a survey, by the noise of that."""
    side = suspect.side
    tolerance = msgspec.structs.replace(side.tolerance, noise=extended.noise)
    ran = joined(side.before, only(side.now, suspect.case.index, case.index))
    return compared(extended, side.row, ran, side.narrowing, tolerance).status is Status.FAILED


def with_case(survey: Survey, case: CaseFile, noise: dict[str, float]) -> tuple[Survey, CaseFile]:
    """*survey* with *case* as its last, and the case as it is called there."""
    count = len(survey.cases)
    renamed = msgspec.structs.replace(case, index=count)
    floors: dict[str, list[float | None] | float] = {
        name: [*known, noise.get(name)] if isinstance(known, list) else known
        for name, known in survey.noise.items()
    }
    for name in noise.keys() - floors.keys():
        floors[name] = [*[None] * count, noise[name]]
    checks = [_counting(check, count + 1) for check in survey.checks]
    extended = msgspec.structs.replace(survey, cases=[*survey.cases, renamed], noise=floors, checks=checks)
    return extended, renamed


def _counting(check: Check, cases: int) -> Check:
    """The check of the reference with the number of *cases*; every other as it is."""
    if check.check != catalog.REFERENCE.name or "cases" not in check.numbers:
        return check
    return msgspec.structs.replace(check, numbers={**check.numbers, "cases": cases})
