"""The terminal's view of a consolidation: the tensors, what is left out and why, the files."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING

from mnnprep.cli.tables import grid, section, word
from mnnprep.text import decimal_size

if TYPE_CHECKING:
    from rich.console import Console

    from mnnprep.weights.writer import Consolidated

SHOWN = 20


def show_consolidated(console: Console, made: Consolidated, output: str) -> None:
    """The outcome of `consolidate`, or its plan."""
    verb = "written to" if made.written else "would be"
    target = Path(output).name if output else "one safetensors file"
    console.print(
        word(f"{len(made.tensors)} tensors, {decimal_size(made.size)}, {verb} {target} ({made.layout})"),
        soft_wrap=True,
    )
    for note in made.notes:
        console.print(word(f"  {note}"), soft_wrap=True)
    if not made.written:
        rows = [
            (t.name, t.dtype, "x".join(map(str, t.shape)) or "scalar", decimal_size(t.size))
            for t in made.tensors
        ]
        section(console, "tensors", grid(["", "", "", ">"], rows))
    _left_out(console, made)
    if made.rounding:
        worst = sorted(made.rounding, key=lambda r: -r.relative)[:SHOWN]
        rows = [(r.name, f"{r.source} to {r.target}", f"{r.worst:.3g}", f"{r.relative:.3g}") for r in worst]
        section(
            console,
            "worst rounding errors (absolute, over the tensor's maximum)",
            grid(["", "", ">", ">"], rows),
        )
    files = [(f.name, decimal_size(f.size), f.sha256 or "") for f in made.inputs[:SHOWN]]
    if made.written:
        files.append((target, decimal_size(made.size), made.sha256 or ""))
    section(console, "files, with sha256", grid(["", ">", ""], files))


def _left_out(console: Console, made: Consolidated) -> None:
    if not made.left_out:
        return
    if made.written:
        counts = Counter(entry.reason for entry in made.left_out)
        sizes = {reason: sum(e.size for e in made.left_out if e.reason == reason) for reason in counts}
        rows = [
            (f"{count} entries", decimal_size(sizes[reason]), reason)
            for reason, count in counts.most_common(SHOWN)
        ]
    else:
        rows = [(e.name, decimal_size(e.size), e.reason) for e in made.left_out]
    section(console, "left out", grid(["", ">", ""], rows))
