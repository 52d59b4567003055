"""The catalogue as the table of the documentation."""

from __future__ import annotations

import sys

from mnnprep.evidence import catalog
from mnnprep.evidence.row import Family, Need, Role, Row

WEIGHT = {Need.ALWAYS: "yes", Need.ASKED: "if asked", Need.NEVER: "no"}
OUTCOME = {
    Role.COMPARISON: "`differs`",
    Role.PROVABILITY: "`unproven`",
    Role.USABILITY: "`refused`",
    Role.INFORMATIVE: "",
}


def table() -> str:
    """Every row of the catalogue, in its order, as a table in Markdown with an anchor a check."""
    rows = [entry.row if isinstance(entry, Family) else entry for entry in catalog.ALL]
    anchored = {row.anchor: row for row in reversed(rows)}  # the first of those that share one has it
    lines = [_line(row, anchored[row.anchor] is row) for row in rows]
    head = ["| check | it asks | what it catches | required | failed |", "| --- | --- | --- | --- | --- |"]
    return "\n".join([*head, *lines]) + "\n"


def _line(row: Row, anchored: bool) -> str:
    anchor = f'<a id="{row.anchor.partition("#")[2]}"></a>' if anchored else ""
    cells = (
        f"{anchor}`{row.name}`",
        row.question,
        row.catches,
        WEIGHT[row.need],
        OUTCOME[row.role],
    )
    return f"| {' | '.join(cells)} |"


if __name__ == "__main__":
    sys.stdout.write(table())
