"""The terminal's view of targets: their environments, and what ran there."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from mnnprep.bundle import manifest_view as digest
from mnnprep.bundle.manifest import TargetRecord
from mnnprep.bundle.target_view import EngineSpan, on_targets
from mnnprep.cli.tables import grid, section, status_word, word, works_word
from mnnprep.evidence.check import Check
from mnnprep.safety.printable import one_line
from mnnprep.text import decimal_size

if TYPE_CHECKING:
    from rich.console import Console

    from mnnprep.commands.target import EnvironmentState


def show_environments(console: Console, environments: Sequence[EnvironmentState]) -> None:
    """Every environment that is here: what it is, its size and place, what it lacks."""
    if not environments:
        console.print(word("no environment is here; next: mnnprep target add arm64"))
        return
    rows = [
        (
            e.arch,
            f"MNN {e.engine}" if e.engine else "system",
            f"Python {e.python}",
            decimal_size(e.size),
            works_word(e.works) if e.engine else "",
            e.needs or e.origin,
        )
        for e in environments
    ]
    section(console, "environments", grid(["", "", "", ">", "", ""], rows))
    for place in dict.fromkeys(e.path.rpartition("/")[0] for e in environments):
        console.print(word(f"  in {place}"), soft_wrap=True)


def show_targets(
    console: Console,
    evidence: Sequence[Check],
    targets: Sequence[TargetRecord],
    engines: Sequence[EngineSpan],
) -> None:
    """Every target and output with its error, and from which engine on each target is right."""
    rows = [
        (
            row.target,
            row.arithmetic if f"engine={row.engine}" in row.target else f"{row.engine} {row.arithmetic}",
            str(row.cases or ""),
            one_line(row.output),
            digest.number(row.worst.max_abs) if row.worst and row.worst.comparable else "",
            digest.number(row.worst.sqnr_db) if row.worst and row.worst.comparable else "",
            status_word(row.status),
        )
        for row in on_targets(evidence, targets)
    ]
    names = ["target", "MNN", "cases", "output", "max abs", "SQNR dB", ""]
    if rows:
        found = grid(["", "", ">", "", ">", ">", ""], rows, names)
        section(console, "targets, worst over the cases", found)
    for span in engines:
        console.print(one_line(str(span)))
