"""The terminal's view of a check: each hazard with MNN's behaviour, its places, and the remedy."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from mnnprep.cli.tables import grid, section, word
from mnnprep.safety.printable import one_line

if TYPE_CHECKING:
    from rich.console import Console

    from mnnprep.commands.check_report import CheckReport, Hazard
    from mnnprep.repair.rule import Severity

SHOWN = 8
ORDER: tuple[Severity, ...] = ("wrong", "crash", "refused", "low", "narrowed")
STYLES = {
    "wrong": "bold magenta",
    "crash": "bold magenta",
    "refused": "bold yellow",
    "low": "bold yellow",
    "narrowed": "dim",
}
WORDS = {
    "wrong": "silently wrong",
    "crash": "crashing",
    "refused": "refused",
    "low": "wrong at precision low",
    "narrowed": "narrowed",
}


def show_check(console: Console, report: CheckReport) -> None:
    """The hazards by severity, each once with its places; then how many, and how many `prepare` rewrites."""
    opset = f", opset {report.opset}" if report.opset else ""
    against = f"MNN {report.mnn}" if report.mnn else "no MNN installed: operators were not compared"
    console.print(word(f"{one_line(report.path)}: {report.kind}{opset}; {against}", "dim"), soft_wrap=True)
    groups: dict[str, list[Hazard]] = {}
    for hazard in sorted(report.hazards, key=lambda h: ORDER.index(h.severity)):
        groups.setdefault(hazard.rule, []).append(hazard)
    for rule, found in groups.items():
        console.print()
        console.print(
            word(f"{found[0].severity}  ", STYLES[found[0].severity])
            + word(rule, "bold")
            + word(f"  {found[0].hazard}"),
            soft_wrap=True,
        )
        rows = [(h.node, h.detail, h.source, "prepare repairs it" if h.repaired else "") for h in found]
        if len(rows) > SHOWN:
            rows = [*rows[:SHOWN], (f"and {len(rows) - SHOWN} more", "", "", "")]
        section(console, "", grid(["", "", "", ""], rows))
        console.print(word(f"  remedy: {found[0].remedy}", "cyan"), soft_wrap=True)
    if report.measured:
        hints = [
            (m.operator, f"right in {m.right} of {m.cases}", f"with MNN {m.engine}" if m.engine else "")
            for m in report.measured
        ]
        section(
            console,
            "no hazard known here, though MNN does not get all of ONNX's own cases right",
            grid(["", "", ""], hints),
        )
    for note in report.notes:
        console.print()
        console.print(word(one_line(note), "dim"), soft_wrap=True)
    console.print()
    console.print(word(_summary(report)), soft_wrap=True)


def _summary(report: CheckReport) -> str:
    counts = Counter(h.severity for h in report.hazards)
    if not counts:
        return "no hazard that mnnprep knows of; only `mnnprep prepare` proves it"
    parts = ", ".join(f"{counts[s]} {WORDS[s]}" for s in ORDER if counts[s])
    repaired = sum(h.repaired for h in report.hazards)
    return f"{parts}; prepare has a rewrite for {repaired} of {sum(counts.values())}"
