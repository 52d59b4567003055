"""What MNN computes of the nets for a phone, without and with the rules for precision low.

    python -m evaluation.low_precision [--target arm64:low] [--only TEXT] [--repair]

Each net is converted as it is and run here at high and on the target; with ``--repair`` it is run again
after the rules for low, which are told how large its values get. Nothing of mnnprep's proof is used: the SQNR
is that of the net's output over all samples against onnxruntime.
Exit code: 0; 1 if a planted net is right on the target as it is, a sound one wrong, any net wrong at high,
or, with ``--repair``, a net wrong that was right. What no rule repairs is listed.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path

import msgspec
import numpy as np
import onnxruntime

from evaluation.nets.mnn_models import SEED, case
from evaluation.phone import planted, sound
from evaluation.phone.net import Array, PhoneNet
from mnnprep.formats.onnx.magnitudes import MAGNITUDES, MagnitudesJob
from mnnprep.mnn.convert import CONVERT, ConvertJob
from mnnprep.mnn.run import RUN, MnnRunJob
from mnnprep.model.files import load_arrays
from mnnprep.model.messages import CaseFile
from mnnprep.model.target import Target
from mnnprep.repair.steps import REPAIR, RepairJob
from mnnprep.repair.table import low_rules
from mnnprep.targets.environment import worker_of
from mnnprep.targets.run import settings_of
from mnnprep.workers.failure import StepFailed
from mnnprep.workers.host import Host
from mnnprep.workers.step import Worker

LEAST = 30.0  # dB
SECONDS = 300.0  # of one step
NOTHING = -999.0  # dB of a net that gives nothing


@dataclass(frozen=True)
class Row:
    """One net's SQNR in dB, here at high, on the target, and there after the rules that fired."""

    net: PhoneNet
    high: float
    low: float
    rules: tuple[str, ...] = ()
    repaired: float | None = None

    @property
    def wrong(self) -> str:
        """What should not be; empty if nothing."""
        if self.high < LEAST:
            return "wrong at high"
        if self.net.planted == (self.low >= LEAST):
            return "right as it is" if self.net.planted else "wrong though sound"
        worse = self.repaired is not None and self.repaired < LEAST <= self.low
        return "worse than before" if worse else ""


class Laboratory:
    """Converts and runs nets: MNN here, and on *target*."""

    def __init__(self, target: Target, scratch: Path) -> None:
        self.target, self.scratch = target, scratch
        self._stack = ExitStack()
        self._made = 0

    def __enter__(self) -> Laboratory:
        here = Worker("nets", ("numpy", "MNN", "_tools", "onnx", "onnx_ir", "onnxruntime"))
        self.here = self._stack.enter_context(Host(here, scratch=self.scratch))
        self.there = self._stack.enter_context(Host(worker_of(self.target), scratch=self.scratch))
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def directory(self) -> Path:
        """A new directory."""
        self._made += 1
        path = self.scratch / str(self._made)
        path.mkdir()
        return path

    def row(self, net: PhoneNet, *, repair: bool) -> Row:
        """Measure *net*."""
        home = self.directory()
        model = net.build(home)
        cases = [case(home, number, dict(sample)) for number, sample in enumerate(net.samples)]
        expected = expected_outputs(model, net)
        high, low = self._sqnr(model, cases, expected)
        row = Row(net, high, low)
        if not repair:
            return row
        magnitudes = MagnitudesJob(model=str(model), cases=cases, directory=str(home))
        job = RepairJob(
            model=str(model),
            directory=str(self.directory()),
            rules=low_rules(),
            magnitudes=self.here.run(MAGNITUDES, magnitudes, timeout=SECONDS).value.values,
        )
        done = self.here.run(REPAIR, job, timeout=SECONDS).value
        if not done.files:
            return row
        again, repaired = self._sqnr(Path(done.files[0].path), cases, expected)
        return replace(row, high=min(high, again), rules=tuple(f.rule for f in done.fired), repaired=repaired)

    def _sqnr(self, model: Path, cases: list[CaseFile], expected: list[Array]) -> tuple[float, float]:
        """The SQNR of what MNN makes of *model*, here at high and on the target."""
        home = self.directory()
        convert = ConvertJob(model=str(model), frontend="ONNX", uuid_seed=SEED, directory=str(home))
        made = self.here.run(CONVERT, convert, timeout=SECONDS).value
        if made.file is None:
            return NOTHING, NOTHING
        inputs = {tensor.name: tensor.name for tensor in made.inputs}
        job = MnnRunJob(
            model=made.file.path,
            cases=cases,
            input_names=inputs,
            output_names={"y": "y"},
            layouts={},
            directory=str(home),
        )
        settings = settings_of(self.target)
        there = msgspec.structs.replace(job, directory=str(self.directory()), settings=settings)
        return _of_run(self.here, job, expected), _of_run(self.there, there, expected)


def _of_run(host: Host, job: MnnRunJob, expected: list[Array]) -> float:
    try:
        ran = host.run(RUN, job, timeout=SECONDS).value
    except StepFailed:
        ran = host.run(RUN, job, timeout=SECONDS).value  # an emulator may be killed for its memory
    if ran.errors:
        return NOTHING
    found = [load_arrays(ran.outputs[str(number)].path)["y"] for number in range(len(expected))]
    return sqnr(found, expected)


def expected_outputs(model: Path, net: PhoneNet) -> list[Array]:
    """What onnxruntime, without its optimizations, computes of *model* on the samples of *net*."""
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = onnxruntime.InferenceSession(str(model), options)
    return [session.run(["y"], dict(sample))[0] for sample in net.samples]


def sqnr(found: list[Array], expected: list[Array]) -> float:
    """The SQNR in dB over all arrays; NOTHING if the shapes differ or something finite is not so any more."""
    if any(f.shape != e.shape for f, e in zip(found, expected, strict=True)):
        return NOTHING
    got, wanted = (
        np.concatenate([a.reshape(-1) for a in arrays]).astype(float) for arrays in (found, expected)
    )
    if not np.isfinite(got).all():
        return NOTHING
    noise = float(((got - wanted) ** 2).sum())
    return 10 * float(np.log10(float((wanted**2).sum()) / noise)) if noise else float("inf")


def rows(target: Target, only: str, *, repair: bool) -> Iterator[Row]:
    """Measure every net whose name or kind holds *only*."""
    chosen = [net for net in [*planted.nets(), *sound.nets()] if only in net.name or only in net.kind]
    with (
        tempfile.TemporaryDirectory(prefix="low-precision-") as scratch,
        Laboratory(target, Path(scratch)) as laboratory,
    ):
        for net in chosen:
            yield laboratory.row(net, repair=repair)


def main() -> int:
    """Measure, print a line a net, and judge."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--target", type=Target.parse, default=Target.parse("arm64:low"))
    parser.add_argument("--only", default="", help="only nets whose name or kind holds this text")
    parser.add_argument("--repair", action="store_true", help="again after the rules for precision low")
    options = parser.parse_args()
    found = []
    for row in rows(options.target, options.only, repair=options.repair):
        after = "" if row.repaired is None else f"  {row.repaired:6.1f} by {', '.join(row.rules)}"
        kind = "planted" if row.net.planted else "sound"
        print(f"{kind:8}{row.net.name:52}{row.high:7.1f}{row.low:8.1f}{after}  {row.wrong}", flush=True)
        found.append(row)
    planted_rows = [row for row in found if row.net.planted]
    mended = [row for row in planted_rows if row.repaired is not None and row.repaired >= LEAST]
    print(f"{len(planted_rows)} planted, {len(found) - len(planted_rows)} sound; repaired: {len(mended)}")
    if options.repair:
        left = [row.net.name for row in planted_rows if row not in mended]
        print(f"no rule repairs: {'; '.join(left) or 'none'}")
    return int(any(row.wrong for row in found))


if __name__ == "__main__":
    sys.exit(main())
