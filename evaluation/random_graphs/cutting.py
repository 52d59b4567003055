"""What a graph that differs is cut down to: the node at fault, alone, as `bisect` finds it."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from evaluation.proved.run import Judge
from evaluation.random_graphs.run import one
from mnnprep.commands.bisect import bisect
from mnnprep.errors import MnnprepError
from mnnprep.model.request import Limits
from tests.support.templates import shared_imports

SECONDS = 60.0


def cut(names: Iterable[str], directory: Path) -> None:
    """Prepare each graph again and write the piece at fault to a directory of its own below *directory*."""
    with shared_imports():
        for name in names:
            place = directory / name.replace("/", "-")
            place.mkdir(parents=True, exist_ok=True)
            judge = Judge(str(place), time_budget=1.0)
            try:
                row = one(name, judge)
            finally:
                judge.close()
            print(f"{name}: {row.verdict} {row.check} {' '.join(row.rules)}", flush=True)
            if row.verdict != "differs":
                continue
            try:
                found = bisect(
                    place / "bundle",
                    case=None,
                    output=place / "piece",
                    mnnconvert="",
                    target=None,
                    limits=Limits(timeout=SECONDS),
                    tell=lambda _: None,
                )
            except MnnprepError as error:
                print(f"  {error.what}: {error.seen}", flush=True)
            else:
                print(f"  {' '.join(found.message.split())}", flush=True)
