"""The terminal's view of the environments of targets."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from mnnprep.cli.tables import grid, section, word, works_word
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
