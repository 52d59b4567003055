"""The part of `check` that is about a target: what half precision does to the model, seen in a run of it.

Only this part of `check` runs anything: an ONNX graph, in onnxruntime, in a confined worker with limits.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import msgspec

from mnnprep.commands.reading import SECONDS, run_bounded
from mnnprep.commands.resolve import resolve
from mnnprep.comparison.noise import real
from mnnprep.formats.registry import steps_of
from mnnprep.model.messages import CaseFile, SurveyJob
from mnnprep.model.request import DEFAULT_TIMEOUT, Limits, Request
from mnnprep.model.target import Target
from mnnprep.repair.low_hazards.step import LOW_HAZARDS, LowFindings, LowJob
from mnnprep.safety.leftovers import Scratch
from mnnprep.workers.host import Host

MOST_CASES = 6
# CPUs without half-precision arithmetic, by QEMU's names: MNN 3.6.1 computes there as at precision high, but
# for recurrent operators, which keep 50 dB.
FLOAT32_CPUS = frozenset({"cortex-a35", "cortex-a53", "cortex-a57", "cortex-a72"})
BY_PREPARE = "check runs ONNX graphs only for a --target; `prepare --target` runs this model there"


class LowReport(msgspec.Struct, frozen=True, kw_only=True):
    """What a run told, None if none was needed or possible; ``notes`` say why, and what was left out."""

    found: LowFindings | None = None
    notes: list[str] = msgspec.field(default_factory=list)


def in_half(target: Target) -> bool:
    """Whether MNN computes in half precision there; of a machine over ssh that is assumed at ``low``."""
    arm = bool(target.remote) or target.machine == "arm64"
    return arm and target.precision == "low" and target.cpu.partition(",")[0] not in FLOAT32_CPUS


def low_report(request: Request, targets: Sequence[Target], *, by_rules: bool) -> LowReport:
    """Run the model of *request* for the *targets*, if any of them computes in half precision.

    *by_rules*: it is an ONNX model.

    Raises:
        RefusedError, UsageError: onnxruntime can't run it, or the inputs asked for don't fit.
    """
    notes = [f"{t}: MNN computes there as here, in float32" for t in targets if not in_half(t)]
    if len(notes) == len(targets):
        return LowReport(notes=notes)
    if not by_rules:
        return LowReport(notes=[*notes, BY_PREPARE])
    source = resolve(request)
    steps = steps_of(source.kind)
    limits = _running(request.limits)
    path = Path(source.path)
    with Scratch() as scratch, Host(steps.worker, scratch=scratch) as host:
        directory = scratch / "survey"
        directory.mkdir()
        wanted = SurveyJob(source=source, wants=request.wants, directory=str(directory))
        survey = run_bounded(host, steps.survey, wanted, path, limits)
        measured = scratch / "measured"
        measured.mkdir()
        job = LowJob(
            model=source.path,
            cases=_chosen(survey.cases),
            directory=str(measured),
            beside=source.beside,
            ranges=request.wants.ranges,
        )
        found = run_bounded(host, LOW_HAZARDS, job, path, limits)
    if found.left_out:
        notes.append(f"the bodies of these were not looked into: {', '.join(found.left_out)}")
    return LowReport(found=found, notes=notes)


def _running(limits: Limits) -> Limits:
    """The limits of a step that runs the model, from those of one that reads it."""
    return Limits(timeout=limits.timeout * DEFAULT_TIMEOUT / SECONDS, memory=limits.memory)


def _chosen(cases: list[CaseFile]) -> list[CaseFile]:
    """The cases that are run: real samples first."""
    return sorted(cases, key=lambda case: not real(case.origin))[:MOST_CASES]
