"""What a manifest says of its targets, in words and numbers for a reader."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import msgspec

from mnnprep.bundle.manifest import AgainstLow, TargetRecord
from mnnprep.bundle.worst import Worst, worst_of
from mnnprep.errors import UsageError
from mnnprep.evidence import catalog
from mnnprep.evidence.check import Check, Status
from mnnprep.model.target import Target, version_key
from mnnprep.safety.printable import one_line
from mnnprep.text import listed

SHOWN = 3  # nodes that are wrong, and what happens there


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


def right_targets(evidence: Sequence[Check]) -> list[str]:
    """The targets whose check passed."""
    return [
        catalog.TARGET.member(c.check)
        for c in evidence
        if catalog.TARGET.has(c.check) and c.status is Status.PASSED
    ]


def against_low(found: AgainstLow | None) -> str:
    """What an app must set in place of precision ``low``, and what happens otherwise; empty if it may set it.

    One line, whatever the nodes are called.
    """
    if found is None:
        return ""
    must = f"The app must set precision={' or '.join(found.instead)}"
    if found.targets:
        return f"{must}: with low its outputs are wrong (measured on {listed(found.targets)})."
    if not found.known:
        return f"Whether it is right at precision low could not be told: {one_line(found.unknown)}."
    hazards = list(dict.fromkeys(fault.hazard for fault in found.known))
    nodes = listed([fault.node for fault in found.known], SHOWN)
    return one_line(
        f"{must}, or be given a model prepared with --target arm64:low: with low its outputs are wrong on"
        f" ARM64 CPUs with half-precision arithmetic, as most phones have ({listed(hazards, SHOWN, '; ')}:"
        f" {nodes})."
    )


class EngineSpan(msgspec.Struct, frozen=True, kw_only=True):
    """The engines that a target was tried with.

    Attributes:
        target: its text form, without an engine.
        oldest: the oldest of them from which on all are right; empty: the newest is not.
        right: the versions of those that are right, the oldest first.
        wrong: of those that are not.
    """

    target: str
    oldest: str
    right: list[str]
    wrong: list[str]

    def __str__(self) -> str:
        if not self.oldest:
            return f"{self.target}: wrong with MNN {listed(self.wrong)}"
        wrong = f"; wrong with {listed(self.wrong)}" if self.wrong else ""
        return f"{self.target}: right with MNN {self.oldest} and later, of those tried{wrong}"


def engine_spans(evidence: Sequence[Check], engine: str = "") -> list[EngineSpan]:
    """From which engine on each target is right, if it was tried with more than one.

    ``engine`` is the version that the proof on this machine is by.
    """
    found: dict[Target, dict[str, Status]] = {}
    for check in evidence:
        if engine and check.check == catalog.MNN_COMPARE.name:
            found[Target()] = {engine: check.status}
    for check in evidence:
        if catalog.TARGET.has(check.check) and (target := _parsed(catalog.TARGET.member(check.check))):
            place = msgspec.structs.replace(target, engine="")
            found.setdefault(place, {})[target.engine] = check.status
    return [_span(place, statuses) for place, statuses in found.items() if len(statuses) > 1]


def _span(place: Target, statuses: dict[str, Status]) -> EngineSpan:
    told = {Status.PASSED, Status.FAILED}
    versions = sorted((v for v, status in statuses.items() if v and status in told), key=version_key)
    oldest = ""
    for version in reversed(versions):
        if statuses[version] is not Status.PASSED:
            break
        oldest = version
    return EngineSpan(
        target=str(place),
        oldest=oldest,
        right=[v for v in versions if statuses[v] is Status.PASSED],
        wrong=[v for v in versions if statuses[v] is Status.FAILED],
    )


def _parsed(text: str) -> Target | None:
    """The target; None: the name of a device."""
    try:
        return Target.parse(text)
    except UsageError:
        return None


def to_set(evidence: Sequence[Check], engine: str = "") -> str:
    """What an app must do to keep clear of the targets that are wrong: a setting, or a newer engine.

    ``engine`` is as in :func:`engine_spans`.
    """
    wrong = [target for text in wrong_targets(evidence) if (target := _parsed(text))]
    words = []
    if any(target.precision == "low" for target in wrong):
        words.append("The app must set precision=normal or high; with low its outputs are wrong.")
    old = [target.engine for target in wrong if target.engine and target.precision != "low"]
    needed = [span.oldest for span in engine_spans(evidence, engine) if span.oldest and span.wrong]
    if old and needed:
        words.append(f"The app needs MNN {max(needed, key=version_key)} or later.")
    elif old:
        words.append(f"The app needs another engine than MNN {listed(old)}.")
    return " ".join(words) or "Do not ship it to them."
