"""Nets that half precision breaks and nets that it does not, through `prepare --target` and `check --target`.

Whether a net is right on the target is measured here a second time: its model.mnn is run there on every
sample and compared with onnxruntime on the net as it was written, by the evaluation's own SQNR.

    python -m evaluation.phone [--only PART] [--json FILE]

needs the environment of the target (`mnnprep target add arm64`). It exits with 1 if a goal is missed.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

import mnnprep
from evaluation.low_precision import LEAST, expected_outputs, sqnr
from evaluation.phone import planted, sound
from evaluation.phone.net import PhoneNet
from mnnprep.bundle.manifest import Manifest
from mnnprep.commands.prepare import prepare
from mnnprep.commands.run import run_in
from mnnprep.errors import MnnprepError
from mnnprep.evidence.check import Status
from mnnprep.model.options import request_of
from mnnprep.model.request import Limits
from mnnprep.model.target import Target
from mnnprep.repair.table import low_rules
from mnnprep.workers.pool import Workers

TARGET = "arm64:low"
TIMEOUT = 600.0


@dataclass(frozen=True)
class Row:
    """What came of one net.

    ``verdict`` is `prepare`'s, or how it failed; ``right_here`` says whether MNN was right on this machine,
    ``first_right`` whether it was on the target before any rule for low; ``sqnr_db``, in dB, is that of the
    model that was kept, there, measured here; ``found`` are the hazards.
    """

    name: str
    kind: str
    planted: bool
    verdict: str
    right_here: bool
    first_right: bool | None
    sqnr_db: float | None
    rules: list[str]
    found: list[str]
    seconds: float

    @property
    def wrongly_proven(self) -> bool:
        """Whether it is called proven, and is not right by the evaluation's own measure."""
        return self.verdict == "proven" and (self.sqnr_db is None or self.sqnr_db < LEAST)


def measure(net: PhoneNet, directory: Path, workers: Workers) -> Row:
    """Prepare and check one net."""
    started = time.monotonic()
    directory.mkdir()
    model = net.build(directory)
    samples = directory / "samples"
    samples.mkdir()
    for number, arrays in enumerate(net.samples):
        np.savez(samples / f"{number}.npz", **arrays)
    found = _hazards(model, samples)
    options: dict[str, Any] = {"samples": samples, "targets": [TARGET], "timeout": TIMEOUT}
    try:
        manifest = prepare(request_of(str(model), options), directory / "out", workers=workers)
    except MnnprepError as error:
        told = f"{type(error).__name__}: {error.what}"
        return Row(net.name, net.kind, net.planted, told, False, None, None, [], found, _since(started))
    finally:
        workers.sweep()
    return Row(
        net.name,
        net.kind,
        net.planted,
        manifest.verdict.value,
        _status(manifest, "mnn_compare") is Status.PASSED,
        _first_right(manifest),
        _sqnr(net, model, directory / "out", workers),
        [repair.rule for repair in manifest.artifact.repairs],
        found,
        _since(started),
    )


def _since(started: float) -> float:
    return round(time.monotonic() - started, 1)


def _hazards(model: Path, samples: Path) -> list[str]:
    try:
        report = mnnprep.check(model, targets=[TARGET], samples=samples, timeout=60)
    except MnnprepError as error:
        return [f"check: {error.what}"]
    return sorted({f.rule for f in report.hazards if f.rule in low_rules() or f.rule.startswith("half-")})


def _status(manifest: Manifest, name: str) -> Status | None:
    return next((check.status for check in manifest.evidence if check.check == name), None)


def _first_right(manifest: Manifest) -> bool | None:
    """Whether the target was right before any rule for low; None if it did not come to that."""
    first = next((a for a in manifest.artifact.attempts if a.verdict), None)
    if first is None or _status(manifest, "mnn_compare") is not Status.PASSED:
        return None
    return "target:" not in first.reason


def _sqnr(net: PhoneNet, model: Path, bundle: Path, workers: Workers) -> float | None:
    """The SQNR of the net's output over all samples on the target, in dB; None if it does not run there."""
    try:
        ran = run_in(workers, bundle, [dict(arrays) for arrays in net.samples], Target.parse(TARGET))
    except MnnprepError:
        return None
    finally:
        workers.sweep()
    return sqnr([outputs["y"] for outputs in ran], expected_outputs(model, net))


def summary(rows: Sequence[Row]) -> tuple[list[str], bool]:
    """The figures as lines, and whether the goals are met."""
    bad = [row for row in rows if row.planted and row.right_here and row.first_right is False]
    fine = [row for row in rows if not row.planted and row.right_here]
    wrong = [row for row in rows if row.wrongly_proven]
    repaired = [row for row in bad if row.verdict == "proven" and not row.wrongly_proven]
    alarms = [row for row in fine if row.verdict != "proven"]
    seen = [row for row in bad if row.found]
    false = [row for row in fine if row.first_right and row.found]
    harmless = [row for row in rows if row.planted and row.first_right]
    lines = [
        f"planted: {sum(row.planted for row in rows)}, of which wrong at low before repair {len(bad)},"
        f" right all the same {len(harmless)}",
        f"called proven and wrong: {len(wrong)} (goal 0)",
        f"repaired and proven: {len(repaired)} of {len(bad)} (goal three in four)",
        f"sound: {len(fine)} right here, not proven at low {len(alarms)} (goal one in thirty)",
        f"hazards: {len(seen)} of {len(bad)} wrong ones found (goal nine in ten),"
        f" {len(false)} of {len(fine)} right ones named (goal one in twenty)",
    ]
    met = (
        not wrong
        and 4 * len(repaired) >= 3 * len(bad)
        and 30 * len(alarms) <= len(fine)
        and 10 * len(seen) >= 9 * len(bad)
        and 20 * len(false) <= len(fine)
    )
    return lines, met


def main(arguments: list[str] | None = None) -> int:
    """Run the nets, print a line each and the figures."""
    parser = argparse.ArgumentParser(prog="python -m evaluation.phone", description=__doc__)
    parser.add_argument("--only", default="", help="nets whose name or kind has this in it")
    parser.add_argument("--json", default="", help="a file for the rows")
    given = parser.parse_args(arguments)
    nets = [n for n in (*planted.nets(), *sound.nets()) if given.only in f"{n.name} {n.kind}"]
    rows = []
    with tempfile.TemporaryDirectory() as place, Workers(Limits(timeout=TIMEOUT), reads=[place]) as workers:
        for number, net in enumerate(nets):
            row = measure(net, Path(place) / str(number), workers)
            rows.append(row)
            print(
                f"{'planted' if row.planted else 'sound':8}{row.kind[:24]:25}{row.name[:34]:35}"
                f"{row.verdict[:30]:12}"
                f"{'' if row.sqnr_db is None else f'{row.sqnr_db:7.1f} dB':11}{row.seconds:6.1f} s"
                f"  {', '.join(row.rules)}  [{', '.join(row.found)}]",
                flush=True,
            )
    if given.json:
        Path(given.json).write_text(json.dumps([asdict(row) for row in rows], indent=1))
    lines, met = summary(rows)
    print(*lines, sep="\n")
    return 0 if met else 1
