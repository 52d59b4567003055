"""Cases through the whole of `prepare`, with one warm set of workers for many.

The oracle is asked about what it calls proven.
"""

from __future__ import annotations

import tempfile
import threading
from pathlib import Path

import numpy as np

from mnnprep.bundle.manifest import Manifest
from mnnprep.commands.ops.runner import Runner, outcome
from mnnprep.commands.prepare import prepare
from mnnprep.conformance.messages import ConformanceCase, Outcome, Status
from mnnprep.errors import MnnprepError
from mnnprep.model.files import Arrays, load_arrays, save_arrays
from mnnprep.model.request import Limits, Request, make_wants
from mnnprep.workers.pool import Workers

SECONDS = 20.0
SAMPLES = 3  # as many as `prepare` needs to do without synthesized ones
SPREAD = 0.1  # how far the further samples' floats are from the case's, relative to each


class Prover:
    """Prepares cases; every thread has its own workers. Use as a context manager."""

    def __init__(self, runner: Runner) -> None:
        self._runner = runner
        self._local = threading.local()
        self._made: list[Workers] = []

    def __enter__(self) -> Prover:
        return self

    def __exit__(self, *_: object) -> None:
        for workers in self._made:
            workers.__exit__(None, None, None)

    def prepare(self, case: ConformanceCase) -> Outcome:
        """Return the verdict on the case, given its own inputs as samples.

        The status is the oracle's if there is a ``model.mnn``.
        """
        workers = self._workers()
        workers.sweep()
        with tempfile.TemporaryDirectory(dir=self._runner.scratch) as directory:
            target = Path(directory) / "bundle"
            wants = make_wants(samples=_samples(case, Path(directory) / "samples"))
            try:
                manifest = prepare(
                    Request(source=case.model, wants=wants, limits=workers.limits), target, workers=workers
                )
            except MnnprepError as error:
                return outcome(
                    case,
                    "prepare",
                    "refused",
                    "prepare",
                    f"{error.what}: {error.seen}"[:300],
                    verdict=error.kind,
                )
            status, detail = self._judged(case, manifest, target)
            why = detail or next(
                (c.reason for c in manifest.evidence if c.required and c.status.value != "passed"), ""
            )
            rules = [r.rule for r in manifest.artifact.repairs]
            return outcome(
                case, "prepare", status, "prepare", why[:300], rules, verdict=manifest.verdict.value
            )

    def _judged(self, case: ConformanceCase, manifest: Manifest, target: Path) -> tuple[Status, str]:
        model = next(
            (path for name in ("model.mnn", "unproven.mnn") if (path := target / name).exists()), None
        )
        if model is None:
            return "refused", ""
        if case.unfed:
            return "unfed", case.unfed
        tensors = (*manifest.signature.inputs, *manifest.signature.outputs)
        return self._runner.oracle(case, str(model), {t.source_name: t.mnn_name for t in tensors})

    def _workers(self) -> Workers:
        if not hasattr(self._local, "workers"):
            self._local.workers = Workers(Limits(timeout=SECONDS))
            self._made.append(self._local.workers)
        workers: Workers = self._local.workers
        return workers


def _samples(case: ConformanceCase, directory: Path) -> str:
    """Write the case's inputs, and the same with other numbers in the first of floats, as files.

    Empty if they are not arrays.
    """
    if case.unfed or not case.inputs:
        return ""
    arrays = load_arrays(case.data)
    own = {name: arrays[f"inputs/{name}"] for name in case.inputs}
    directory.mkdir()
    for number in range(SAMPLES):
        save_arrays(directory / f"{number}.npz", own if number == 0 else _varied(own, number))
    return str(directory)


def _varied(arrays: Arrays, seed: int) -> Arrays:
    """The first input of floats a little off; the others stay (they may be scales, indices, sizes)."""
    rng = np.random.default_rng(seed)
    first = next((name for name, a in arrays.items() if a.dtype.kind == "f"), "")
    return {
        name: (a * (1 + SPREAD * rng.uniform(-1, 1, a.shape))).astype(a.dtype) if name == first else a
        for name, a in arrays.items()
    }
