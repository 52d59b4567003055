"""What a source says of itself once its cases are chosen: its noise, whether it is deterministic, whether its inputs tell anything."""

from __future__ import annotations

import itertools
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from mnnprep.core.compare import Tolerance
from mnnprep.core.evidence import Check, failed, passed
from mnnprep.core.files import Arrays, file_ref, save_arrays
from mnnprep.core.messages import CaseFile, Sweep
from mnnprep.core.net import Case, Net, Refused
from mnnprep.core.signature import Signature

VACUITY_FACTOR = 3.0  # two cases must differ by this many tolerances somewhere


@dataclass
class Surveyed:
    """The outcome; ``write`` puts the cases on disk."""

    signature: Signature
    cases: list[Case]
    checks: list[Check]
    noise: dict[str, float]
    exempt: dict[str, str]
    sweep: Sweep = field(default_factory=Sweep)

    def write(self, directory: Path) -> list[CaseFile]:
        return [write_case(directory, index, case) for index, case in enumerate(self.cases)]


def tolerances(out: Surveyed) -> Tolerance:
    return Tolerance(noise=out.noise)


def sensitive(name: str, cases: list[Case], tolerance: Tolerance) -> bool:
    """Whether two cases of the same shapes differ clearly somewhere in this output."""
    for a, b in itertools.combinations(cases, 2):
        x, y = a.outputs[name], b.outputs[name]
        if a.dims != b.dims or x.shape != y.shape or not x.size:
            continue
        if x.dtype.kind != "f":
            if np.any(x != y):
                return True
            continue
        both = np.isfinite(x) & np.isfinite(y)
        gap = np.abs(np.where(both, x, 0).astype(np.float64) - np.where(both, y, 0).astype(np.float64))
        limit = np.maximum(tolerance.threshold(name, x), tolerance.threshold(name, y))
        if np.any((gap > VACUITY_FACTOR * limit) & both):
            return True
    return False


def vacuity(out: Surveyed) -> Check:
    dull = [n for n in out.cases[0].outputs if n not in out.exempt and not sensitive(n, out.cases, tolerances(out))]
    if dull:
        return failed(
            "vacuity",
            f"no two inputs tried move {', '.join(dull)} by {VACUITY_FACTOR:g} tolerances, so a constant would pass; "
            "give inputs that do with --samples or --range",
            subject=", ".join(dull),
        )
    numbers = {"exempt": [f"{n}: {why}" for n, why in out.exempt.items()]} if out.exempt else {}
    return passed("vacuity", numbers=numbers)


def drowned(out: Surveyed) -> list[Check]:
    tolerance = tolerances(out)
    drowned = sorted({n for c in out.cases for n, a in c.outputs.items() if a.dtype.kind == "f" and tolerance.drowned(n, a) and np.any(a)})
    if not drowned:
        return []
    return [
        failed(
            "noise",
            f"the source's own noise floor in {', '.join(drowned)} is above a tenth of {tolerance.ceiling:g} of its largest value: "
            "the net can't be told from its noise",
            subject=", ".join(drowned),
            numbers={n: out.noise[n] for n in drowned},
        )
    ]


def determinism(net: Net, cases: list[Case]) -> Check:
    for case in cases[:1]:
        try:
            again = net.run(case.inputs)
        except Refused as error:
            return failed("determinism", f"an input that was taken at first was refused the second time: {error}; make the model keep no state")
        moved = [
            n
            for n, a in case.outputs.items()
            if n not in again or a.shape != again[n].shape or not np.array_equal(a, again[n], equal_nan=a.dtype.kind == "f")
        ]
        if moved:
            return failed(
                "determinism",
                f"the same input gave another {', '.join(moved)} the second time: a random operator reaches it, or the model keeps state; "
                "make the noise or the state an input of the model",
                subject=", ".join(moved),
            )
    return passed("determinism", numbers={"runs": 2})


def measure_noise(net: Net, cases: list[Case], seed: int) -> dict[str, float]:
    """The noise floor of every floating output: float32 against float64 where the framework can, else :func:`estimate_noise`."""
    precise = net.run_precise(cases[0].inputs)
    return estimate_noise(net, cases[0], seed) if precise is None else _gaps(cases[0], precise)


def estimate_noise(net: Net, case: Case, seed: int) -> dict[str, float]:
    """The largest change of every floating output under one-ulp perturbations of the floating inputs: 0.3 to 2 times what float64 shows, on the
    60 nets of benchmarks/zoo.py that have such inputs, for one more run."""
    return _gaps(case, _perturbed(net, case, seed) or {})


def _gaps(case: Case, other: Arrays) -> dict[str, float]:
    """How far each floating output of *case* is from what *other* has."""
    noise: dict[str, float] = {}
    for name, reference in case.outputs.items():
        array = other.get(name)
        if reference.dtype.kind == "f" and array is not None and array.shape == reference.shape:
            gap = np.abs(reference.astype(np.float64) - array.astype(np.float64))
            noise[name] = float(gap[np.isfinite(gap)].max(initial=0.0))
    return noise


def _perturbed(net: Net, case: Case, seed: int) -> Arrays | None:
    rng = np.random.Generator(np.random.PCG64([seed, 1]))
    moved = {
        n: np.nextafter(a, np.where(rng.random(a.shape) < 0.5, -np.inf, np.inf).astype(a.dtype)).astype(a.dtype) if a.dtype.kind == "f" else a
        for n, a in case.inputs.items()
    }
    try:
        return net.run(moved)
    except Refused:
        return None


def write_case(directory: Path, index: int, case: Case) -> CaseFile:
    path = directory / f"case-{index}.npz"
    arrays = {f"inputs/{n}": a for n, a in case.inputs.items()} | {f"outputs/{n}": a for n, a in case.outputs.items()}
    save_arrays(path, arrays)
    return CaseFile(index=index, origin=case.origin, dims=case.dims, file=file_ref(path))
