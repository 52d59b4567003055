"""Task metrics as checks.

Each is measured in a worker of its own, so that a function of the user's costs at most its own check.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace

from mnnprep.attempt.task_metrics import MEASURE, Measured, MetricJob
from mnnprep.comparison.noise import real
from mnnprep.evidence import catalog
from mnnprep.evidence.check import Check, Figure, Status
from mnnprep.model.messages import CaseFile, RunResult
from mnnprep.model.metrics import Metric
from mnnprep.workers.failure import StepFailed
from mnnprep.workers.pool import Workers
from mnnprep.workers.step import Worker

HERE = replace(MEASURE, worker=Worker("functions of this process"))


def metric_checks(
    workers: Workers,
    metrics: Iterable[Metric],
    cases: list[CaseFile],
    runs: Mapping[str, RunResult | None],
    checks: Iterable[Check] = (),
) -> list[Check]:
    """Make a ``metric:NAME`` check for each of *metrics*.

    It is measured over the real samples if there are any, else over all *cases*.

    *runs* maps where the net ran (``artifact``, ``MNN``) to what it gave, or None if it did not run;
    *checks* are the source's, of which a failed ``determinism`` leaves nothing to measure. A check is
    required where its metric has a threshold.
    """
    random = any(c.check == catalog.DETERMINISM.name and c.status is Status.FAILED for c in checks)
    idle = [where for where, ran in runs.items() if ran is None]
    samples = [case for case in cases if real(case.origin)]
    found = []
    for metric in metrics:
        if random or idle or not runs:
            why = (
                "the source gives different numbers each time"
                if random
                else f"{' and '.join(idle) or 'the net'} did not run"
            )
            found.append(
                metric.row.not_run(why, required=metric.threshold is not None, subject=metric.wanted())
            )
            continue
        if metric.own and not metric.function:
            known = metric.sha256 or "unknown"
            why = f"the bundle does not hold its code; give it with --metric (sha256 {known})"
            found.append(
                metric.row.not_run(why, required=metric.threshold is not None, subject=metric.wanted())
            )
            continue
        job = MetricJob(
            metric=metric,
            cases=samples or cases,
            runs={where: ran for where, ran in runs.items() if ran is not None},
        )
        found.append(
            _judged(metric, _measured(workers, job), len(job.cases), "real" if samples else "synthesized")
        )
    return found


def _measured(workers: Workers, job: MetricJob) -> Measured:
    step = MEASURE
    if job.metric.function.startswith("live:"):
        step = HERE
        workers.in_parent(step.worker)
    try:
        return workers.run(step, job)
    except StepFailed as failure:
        return Measured(
            problem=f"measuring it {failure.reason}" if failure.fate != "error" else failure.reason
        )


def _judged(metric: Metric, measured: Measured, cases: int, inputs: str) -> Check:
    required = metric.threshold is not None
    if measured.problem:
        return metric.row.not_run(measured.problem, required=required, subject=metric.wanted())
    numbers: dict[str, Figure] = {"cases": cases, "inputs": inputs}
    if metric.threshold is not None:
        numbers["at_most" if metric.at_most else "at_least"] = metric.threshold
    short = []
    for where, values in measured.values.items():
        worst = (max if metric.at_most else min)(values.values(), key=float)
        numbers[where] = worst
        if len(values) > 1:
            numbers |= {f"{where}:{output}": value for output, value in values.items()}
        if where in measured.extremes:
            numbers[f"{where}:least"], numbers[f"{where}:most"] = measured.extremes[where]
        if not metric.reached(float(worst)):
            short.append(f"{_figure(worst)} in {where}")
    if short:
        reason = f"{metric.name} is {' and '.join(short)}, where it must be {metric.wanted()}"
        return metric.row.failed(reason, required=required, subject=metric.wanted(), numbers=numbers)
    return metric.row.passed(required=required, subject=metric.wanted(), numbers=numbers)


def _figure(value: float | str) -> str:
    return value if isinstance(value, str) else f"{value:.6g}"
