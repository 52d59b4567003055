"""Task metrics: what a difference means for the task.

Each is a formula over the outputs of all cases; the tolerance stays the judge.

For a reference *r* and outputs *a* of one shape, over every case that is counted, per output:

``top1``    the share of rows in which the first choice of *a* (the lowest index of its largest score) is a
            first choice of *r* (any of its largest). A row is a vector along the class axis: the last one; of
            four axes the shorter of the second and the last that has at least two elements, the second where
            they are equal. Only floating outputs with at least two classes. A row with a NaN on either side
            is a miss.
``top5``    the same with any of the five highest scores of *a* (equal ones by index); at least six classes.
``cosine``  min over the cases of r.a / (|r| |a|), flattened; two zero vectors have 1, a zero and another 0.
            Floating outputs.
``sqnr``    10 log10(sum r^2 / sum (r - a)^2) in dB, sums over all cases; infinite without an error. Floating
            outputs.
``mse``     the mean of (r - a)^2 over all elements of all cases. Floating outputs.
``iou``     intersection over union, sums over all cases. Booleans: of the true elements (1 where both have
            none). Integers of at least two axes: label maps, the mean over the labels that occur on either
            side; floating maps of four axes with at least two classes are first made labels along the class
            axis. Integer outputs of more than 4096 labels are not label maps.

If *r* and *a* have NaN or an infinity at the same places, ``cosine``, ``sqnr`` and ``mse`` leave those
out; at other places, and where names or shapes differ, nothing is measured. Empty outputs are left out. The
value of several outputs is the worst. A function of the user's gets ``(reference, outputs)`` of a case, both
dicts of arrays by name, and returns a number; its value is the mean over the cases.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import msgspec
import numpy as np
import numpy.typing as npt

from mnnprep.errors import MnnprepError
from mnnprep.formats.factory import find_factory, place_of
from mnnprep.model.files import Arrays, load_arrays
from mnnprep.model.messages import CaseFile, RunResult
from mnnprep.model.metrics import Metric
from mnnprep.model.running import case_outputs
from mnnprep.safety.error_text import said
from mnnprep.workers.step import Step, Worker

Array = npt.NDArray[Any]
Part = dict[str, Any]  # what one case adds, by the name of a sum
LIVE: dict[str, Callable[..., Any]] = {}  # functions of the process that called, by their key
MOST_LABELS = 4096


class MetricJob(msgspec.Struct, frozen=True, kw_only=True):
    """Measure one metric on ``cases``, between their references and what each of ``runs`` gave."""

    metric: Metric
    cases: list[CaseFile]
    runs: dict[str, RunResult]


class Measured(msgspec.Struct, frozen=True, kw_only=True):
    """``values`` by run and output (a user's own metric has the output ``""``).

    Numbers that JSON lacks are ``inf`` and ``-inf`` as text. ``extremes`` are the least and the largest value
    of a function in a case; ``problem`` says why there are none.
    """

    values: dict[str, dict[str, float | str]] = msgspec.field(default_factory=dict)
    extremes: dict[str, tuple[float, float]] = msgspec.field(default_factory=dict)
    problem: str = ""


def measure(job: MetricJob) -> Measured:
    """Measure in a worker: a function of the user's may do what it likes."""
    try:
        if job.metric.own:
            return _own(job)
        return Measured(
            values={where: _built_in(job.metric, job.cases, ran) for where, ran in job.runs.items()}
        )
    except _Unmeasurable as why:
        return Measured(problem=str(why))


@contextmanager
def at_hand(functions: Mapping[str, Callable[..., Any]]) -> Iterator[None]:
    """Functions of this process, by their keys, for the block."""
    LIVE.update(functions)
    try:
        yield
    finally:
        for key in functions:
            LIVE.pop(key, None)


class _Unmeasurable(Exception):
    """Why a metric has no value."""


def _pairs(cases: Iterable[CaseFile], ran: RunResult) -> Iterator[tuple[CaseFile, Arrays, Arrays]]:
    """Every case with its reference and what the run gave, of the same names and shapes."""
    for case in cases:
        ref = ran.outputs.get(str(case.index))
        if ref is None:
            raise _Unmeasurable(f"case {case.index} has no outputs")
        reference, actual = case_outputs(case.file.path), load_arrays(ref.path)
        for name, array in reference.items():
            if name not in actual or actual[name].shape != array.shape:
                shape = list(actual[name].shape) if name in actual else "missing"
                raise _Unmeasurable(
                    f"{name} of case {case.index} is {shape}, but the reference has {list(array.shape)}"
                )
        yield case, reference, {name: actual[name] for name in reference}


def _built_in(metric: Metric, cases: list[CaseFile], ran: RunResult) -> dict[str, float | str]:
    formula = FORMULAS[metric.kind]
    parts: dict[str, list[Part]] = {}
    for case, reference, actual in _pairs(cases, ran):
        if metric.output and metric.output not in reference:
            raise _Unmeasurable(f"there is no output {metric.output}; there are {', '.join(reference)}")
        for output, array in reference.items():
            if metric.output not in ("", output):
                continue
            try:
                part = formula.part(array, actual[output]) if array.size else None
            except ValueError as why:
                raise _Unmeasurable(f"{output} of case {case.index} {why}") from why
            if part is not None:
                parts.setdefault(output, []).append(part)
    if not parts:
        raise _Unmeasurable(f"{metric.kind} is not defined for any output ({formula.of})")
    values = {output: formula.combine(of_cases) for output, of_cases in parts.items()}
    return {output: value if math.isfinite(value) else str(value) for output, value in values.items()}


def _own(job: MetricJob) -> Measured:
    function = _function(job.metric)
    values: dict[str, dict[str, float | str]] = {}
    extremes: dict[str, tuple[float, float]] = {}
    for where, ran in job.runs.items():
        results = [
            _call(function, case, reference, actual) for case, reference, actual in _pairs(job.cases, ran)
        ]
        if not results:
            raise _Unmeasurable("there is no case")
        values[where] = {"": math.fsum(results) / len(results)}
        extremes[where] = min(results), max(results)
    return Measured(values=values, extremes=extremes)


def _function(metric: Metric) -> Callable[..., Any]:
    if metric.function.startswith("live:"):
        return LIVE[metric.function]
    try:
        return find_factory(metric.function)
    except MnnprepError as error:
        what = error.what.replace("the factory's", "its")
        raise _Unmeasurable(f"the function can't be loaded: {what} ({error.seen})") from error


def _call(function: Callable[..., Any], case: CaseFile, reference: Arrays, actual: Arrays) -> float:
    try:
        result = function(reference, actual)
        value = float(result)
    except (Exception, SystemExit) as error:
        raise _Unmeasurable(
            f"the function failed on case {case.index} at {place_of(error)}: {type(error).__name__}:"
            f" {said(error)}"
        ) from error
    if not math.isfinite(value):
        raise _Unmeasurable(f"the function gave {value} for case {case.index}")
    return value


@dataclass(frozen=True)
class Formula:
    """A metric as a sum over the cases.

    ``part`` is what a case adds (None: not an output of this metric; ValueError: not comparable), ``combine``
    the value over the cases; ``of`` says which outputs it is for.
    """

    part: Callable[[Array, Array], Part | None]
    combine: Callable[[list[Part]], float]
    of: str


def _top(first: int) -> Callable[[Array, Array], Part | None]:
    def part(reference: Array, actual: Array) -> Part | None:
        if reference.dtype.kind != "f" or reference.ndim == 0:
            return None
        axis = class_axis(reference)
        if reference.shape[axis] <= first:
            return None
        ref = np.moveaxis(reference, axis, -1).reshape(-1, reference.shape[axis])
        act = np.moveaxis(actual, axis, -1).reshape(ref.shape)
        broken: Array = np.any(np.isnan(ref) | np.isnan(act), axis=-1)
        ref, act = np.where(broken[:, None], 0, ref), np.where(broken[:, None], 0, act)
        if first == 1:
            chosen = act.argmax(-1)[:, None]
        else:
            chosen = np.argsort(-act.astype(np.float64), axis=-1, kind="stable")[:, :first]
        hits = np.any(np.take_along_axis(ref, chosen, -1) == ref.max(-1, keepdims=True), axis=-1) & ~broken
        return {"hits": int(hits.sum()), "rows": len(ref)}

    return part


def class_axis(scores: Array) -> int:
    """The class axis of scores, as the module says."""
    if scores.ndim != 4:
        return scores.ndim - 1
    return min((1, 3), key=lambda axis: (scores.shape[axis] < 2, scores.shape[axis]))


def _finite(reference: Array, actual: Array) -> tuple[Array, Array] | None:
    """The finite elements of both as float64; None for what is not a floating output.

    Raises:
        ValueError: its non-finite elements are at other places.
    """
    if reference.dtype.kind != "f":
        return None
    ref, act = reference.astype(np.float64).ravel(), actual.astype(np.float64).ravel()
    finite = np.isfinite(ref)
    if not np.array_equal(ref[~finite], act[~finite], equal_nan=True) or not np.all(np.isfinite(act[finite])):
        raise ValueError("has NaN or infinities at other places than the reference")
    return ref[finite], act[finite]


def _cosine(reference: Array, actual: Array) -> Part | None:
    pair = _finite(reference, actual)
    if pair is None:
        return None
    ref, act = (v / (np.abs(v).max(initial=0.0) or 1.0) for v in pair)  # no square overflows or vanishes
    norm = float(np.linalg.norm(ref)) * float(np.linalg.norm(act))
    if norm == 0:
        return {"cosine": float(not ref.any() and not act.any())}
    return {"cosine": max(-1.0, min(1.0, float(np.dot(ref, act)) / norm))}


def _powers(reference: Array, actual: Array) -> Part | None:
    pair = _finite(reference, actual)
    if pair is None:
        return None
    ref, act = pair
    with np.errstate(over="ignore"):
        part = {
            "signal": float(np.square(ref).sum()),
            "noise": float(np.square(ref - act).sum()),
            "elements": ref.size,
        }
    if not (math.isfinite(part["signal"]) and math.isfinite(part["noise"])):
        raise ValueError("is too large to be squared")
    return part


def _sqnr(parts: list[Part]) -> float:
    signal, noise = _sum(parts, "signal"), _sum(parts, "noise")
    return (
        math.inf
        if noise == 0
        else -math.inf
        if signal == 0
        else 10 * (math.log10(signal) - math.log10(noise))
    )


def _overlap(reference: Array, actual: Array) -> Part | None:
    if reference.dtype.kind == "b":
        ref, act = reference, actual != 0
        return {"true": (int((ref & act).sum()), int((ref | act).sum()))}
    if reference.dtype.kind == "f":
        axis = class_axis(reference)
        if reference.ndim != 4 or reference.shape[axis] < 2:
            return None
        _finite(reference, actual)
        reference, actual = reference.argmax(axis), actual.argmax(axis)
    elif reference.ndim < 2:
        return None
    labels = np.union1d(reference, actual)
    if len(labels) > MOST_LABELS:
        return None
    return {
        str(label): (
            int(((reference == label) & (actual == label)).sum()),
            int(((reference == label) | (actual == label)).sum()),
        )
        for label in labels
    }


def _mean_overlap(parts: list[Part]) -> float:
    labels = {label for part in parts for label in part}
    shares = []
    for label in sorted(labels):
        both, either = (sum(part[label][i] for part in parts if label in part) for i in (0, 1))
        shares.append(both / either if either else 1.0)
    return math.fsum(shares) / len(shares)


def _sum(parts: list[Part], name: str) -> float:
    return math.fsum(part[name] for part in parts)


def _share(parts: list[Part]) -> float:
    return _sum(parts, "hits") / _sum(parts, "rows")


FORMULAS: dict[str, Formula] = {
    "top1": Formula(_top(1), _share, "floating scores of at least 2 classes"),
    "top5": Formula(_top(5), _share, "floating scores of at least 6 classes"),
    "cosine": Formula(_cosine, lambda parts: min(part["cosine"] for part in parts), "floating outputs"),
    "sqnr": Formula(_powers, _sqnr, "floating outputs"),
    "mse": Formula(
        _powers, lambda parts: _sum(parts, "noise") / max(1, _sum(parts, "elements")), "floating outputs"
    ),
    "iou": Formula(_overlap, _mean_overlap, "boolean masks, integer label maps and floating maps of 4 axes"),
}


MEASURE = Step.of(measure, Worker("task metrics", ("numpy",)))
