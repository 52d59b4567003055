"""What a manifest says of its targets, in words and numbers for a reader."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from mnnprep.bundle.manifest import TargetRecord
from mnnprep.bundle.worst import Worst, worst_of
from mnnprep.evidence import catalog
from mnnprep.evidence.check import Check, Status
from mnnprep.model.target import Target
from mnnprep.text import listed


@dataclass(frozen=True)
class OnTarget:
    """An output on a target, over the cases that ran there; ``worst`` is None if none did.

    ``arithmetic`` and ``engine`` are empty if it did not run.
    """

    target: str
    arithmetic: str
    engine: str
    cases: int
    output: str
    worst: Worst | None
    status: Status
    reason: str


def on_targets(evidence: Sequence[Check], targets: Sequence[TargetRecord]) -> list[OnTarget]:
    """One row for every target and output that was compared there, in the order in which they were asked."""
    checks = {catalog.TARGET.member(c.check): c for c in evidence if catalog.TARGET.has(c.check)}
    rows = []
    for record in targets:
        check = checks.get(record.target)
        if check is None:
            continue
        outputs = dict.fromkeys(error.output for error in check.outputs) or {"": None}
        for output in outputs:
            errors = [error for error in check.outputs if error.output == output]
            worst = worst_of(output, record.target, errors) if errors else None
            rows.append(
                OnTarget(
                    record.target,
                    record.arithmetic,
                    record.engine,
                    len(record.cases),
                    output,
                    worst,
                    check.status,
                    check.reason,
                )
            )
    return rows


def wrong_targets(evidence: Sequence[Check]) -> list[str]:
    """The targets whose check failed; none if anything else did, too."""
    failed = [c for c in evidence if c.required and c.status is Status.FAILED]
    ours = [catalog.TARGET.member(c.check) for c in failed if catalog.TARGET.has(c.check)]
    return ours if len(ours) == len(failed) else []


def to_set(evidence: Sequence[Check]) -> str:
    """What an app must do to keep clear of the targets that are wrong: a setting, or a newer engine."""
    wrong = [Target.parse(text) for text in wrong_targets(evidence)]
    words = []
    if any(target.precision == "low" for target in wrong):
        words.append("The app must set precision=normal or high; with low its outputs are wrong.")
    if old := [target.engine for target in wrong if target.engine and target.precision != "low"]:
        words.append(f"The app needs another engine than MNN {listed(old)}.")
    return " ".join(words) or "Do not ship it to them."
