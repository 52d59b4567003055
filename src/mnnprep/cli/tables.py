"""Parts of the terminal's view: a table, a section with its title, a word in its colour.

Every state is a word, so that nothing hangs on colour; text from a model has its control characters made
visible and is never read as markup.  rich is imported inside the functions: `--help` does without it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from mnnprep.evidence.check import Status
from mnnprep.safety.printable import one_line, plain

if TYPE_CHECKING:
    from rich.console import Console, RenderableType
    from rich.table import Table
    from rich.text import Text

STATUS_STYLES = {Status.PASSED: "cyan", Status.FAILED: "bold magenta", Status.NOT_RUN: "yellow"}
STATUS_WORDS = {Status.PASSED: "passed", Status.FAILED: "FAILED", Status.NOT_RUN: "not run"}


def status_word(status: Status) -> Text:
    """A check's status, as a word in its colour."""
    return word(STATUS_WORDS[status], STATUS_STYLES[status])


def works_word(works: bool) -> Text:
    """Whether something works, as a word in its colour."""
    return word("works", "cyan") if works else word("no", "yellow")


def word(text: str, style: str = "") -> Text:
    """*text* in *style*, its control characters made visible, none of it read as markup."""
    from rich.text import Text

    return Text(plain(text), style)


def grid(columns: Sequence[str], rows: Sequence[Sequence[RenderableType]], head: Sequence[str] = ()) -> Table:
    """A table without rules; a column given as ``>`` is right-aligned.

    Strings are shown in one line, never as markup.
    """
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, show_header=bool(head), header_style="dim", padding=(0, 2, 0, 0), pad_edge=False)
    for index, column in enumerate(columns):
        title = head[index] if head else ""
        table.add_column(Text(one_line(title)), justify="right" if column == ">" else "left", overflow="fold")
    for row in rows:
        table.add_row(*(Text(one_line(cell)) if isinstance(cell, str) else cell for cell in row))
    return table


def pairs(values: Mapping[str, str]) -> Table:
    """Names and values, one pair a line."""
    return grid(
        ["", ""], [(word(one_line(name), "dim"), word(one_line(value))) for name, value in values.items()]
    )


def section(console: Console, title: str, body: RenderableType) -> None:
    """Print *body* under its *title*, if it has one, indented."""
    from rich.padding import Padding

    console.print()
    if title:
        console.print(word(title, "bold"))
    console.print(Padding(body, (0, 0, 0, 2)))
