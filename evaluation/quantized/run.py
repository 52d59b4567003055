"""Run ``prepare`` on the quantized nets, and count the verdicts."""

from __future__ import annotations

import sys
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NamedTuple

from mnnprep.commands.prepare import prepare
from mnnprep.errors import MnnprepError
from mnnprep.model.request import Request


class Outcome(NamedTuple):
    """What became of one file; ``way`` is how it was quantized."""

    file: str
    kind: str
    way: str
    verdict: str
    seconds: float
    reason: str


def outcome(path: Path) -> Outcome:
    """Prepare the file at *path* without any option."""
    name, way, kind = path.name.split(".")
    started = time.monotonic()
    with TemporaryDirectory() as directory:
        try:
            manifest = prepare(Request(source=str(path)), Path(directory) / "out")
        except MnnprepError as error:
            return Outcome(name, kind, way, "refused", time.monotonic() - started, str(error))
    kept = next((a for a in manifest.artifact.attempts if a.kept), None)
    return Outcome(
        name,
        kind,
        way,
        manifest.verdict.value,
        time.monotonic() - started,
        kept.reason if kept is not None else "",
    )


def run(paths: Sequence[Path]) -> list[Outcome]:
    """Prepare every file, a line each."""
    found = []
    for path in paths:
        one = outcome(path)
        sys.stdout.write(f"{path.name:36} {one.verdict:9} {one.seconds:5.1f} s  {one.reason[:140]}\n")
        sys.stdout.flush()
        found.append(one)
    return found


def table(outcomes: Sequence[Outcome]) -> str:
    """How many were proven, by the format and the way of quantizing."""
    lines = []
    for kind in sorted({o.kind for o in outcomes}):
        ours = [o for o in outcomes if o.kind == kind]
        ways = Counter(o.way for o in ours)
        good = Counter(o.way for o in ours if o.verdict == "proven")
        lines += [f"{kind:8} {way:16} {good[way]:3} of {count:3}" for way, count in sorted(ways.items())]
        share = sum(good.values()) / len(ours)
        lines.append(f"{kind:8} {'all':16} {sum(good.values()):3} of {len(ours):3}  {share:.0%}")
    return "\n".join(lines)
