"""One model's outcome, kept as a line of JSON, and the figures of many."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from pathlib import Path

import msgspec

from mnnprep.errors import EXIT_INTERNAL

SHOWN = 25  # reasons that a report lists


class Row(msgspec.Struct, frozen=True, kw_only=True):
    """What became of a model.

    Args:
        name: the model's, unique in its database.
        group: the database, and whatever it is counted by.
        verdict: of `prepare`; `refused` where nothing was exported, `skipped` where it is no model.
        check: the first required check that did not pass, by its name.
        reason: why it is not proven, in one line.
        oracle: of a model that is proven: right, wrong, shape, or how its run ended; `unasked` without fresh
            inputs.
        exit_code: what the command would have ended with.
    """

    name: str
    group: str
    verdict: str
    check: str = ""
    reason: str = ""
    method: str = ""
    opset: int = 0
    rules: list[str] = msgspec.field(default_factory=list)
    oracle: str = ""
    detail: str = ""
    exit_code: int = 0
    seconds: float = 0.0

    @property
    def exported(self) -> bool:
        """Whether some method made an artifact of it."""
        return self.verdict in ("proven", "unproven", "differs")

    @property
    def silently_wrong(self) -> bool:
        """Whether it was called proven, and the oracle says otherwise."""
        return self.verdict == "proven" and self.oracle not in ("right", "unasked", "unfed")


def kept(path: Path | None) -> dict[str, Row]:
    """The rows in the file *path*, by name; a last line that was cut off is left out."""
    if path is None or not path.exists():
        return {}
    found = {}
    for line in path.read_bytes().splitlines():
        try:
            row = msgspec.json.decode(line, type=Row)
        except msgspec.DecodeError:
            continue
        found[row.name] = row
    return found


def summary(title: str, rows: Iterable[Row]) -> str:
    """The figures of a database in one paragraph."""
    rows = list(rows)
    exported = [r for r in rows if r.exported]
    proven = [r for r in exported if r.verdict == "proven"]
    counts = Counter(r.verdict for r in rows)
    share = 100 * len(proven) / max(1, len(exported))
    return (
        f"{title}: {len(rows)} models, {counts['skipped']} skipped, {counts['refused']} not exported,"
        f" {len(exported)} exported\n"
        f"  {len(proven)} proven ({share:.1f} % of what exports), {counts['differs']} differ,"
        f" {counts['unproven']} unproven\n"
        f"  {sum(r.silently_wrong for r in rows)} silently wrong, "
        f"{sum(r.exit_code == EXIT_INTERNAL for r in rows)} exit 70"
    )


def reasons(rows: Iterable[Row], shown: int | None = SHOWN) -> list[str]:
    """What holds models back: the verdict and the check, with the models' names."""
    found: dict[tuple[str, str, str], list[str]] = {}
    for row in rows:
        if row.exported and row.verdict != "proven":
            found.setdefault((row.verdict, row.check, row.reason[:90]), []).append(row.name)
    ordered = sorted(found.items(), key=lambda item: -len(item[1]))
    return [
        f"{len(names):4d} {verdict} ({check}): {reason} [{', '.join(names[:4])}]"
        for (verdict, check, reason), names in ordered[:shown]
    ]


def failed(rows: Iterable[Row]) -> list[Row]:
    """The rows that must not be: silently wrong, or an error of mnnprep."""
    return [r for r in rows if r.silently_wrong or r.exit_code == EXIT_INTERNAL]
