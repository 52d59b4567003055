"""A source's own properties once its cases are chosen.

They are its noise, whether it is deterministic, whether its inputs tell anything.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from mnnprep.comparison.noise import LEAST_CASES, lost_in_noise, real
from mnnprep.comparison.tolerance import Tolerance
from mnnprep.evidence import catalog
from mnnprep.evidence.check import Check, Figure
from mnnprep.model.files import file_ref, save_arrays
from mnnprep.model.messages import CaseFile, Sweep
from mnnprep.model.net import Case, Net, Refused
from mnnprep.model.signature import Signature
from mnnprep.model.steps import Step
from mnnprep.reference.noise import by_output
from mnnprep.text import listed

VACUITY_FACTOR = 3.0  # two cases must differ by this many tolerances somewhere


@dataclass
class Surveyed:
    """The outcome; ``write`` puts the cases on disk."""

    signature: Signature
    cases: list[Case]
    checks: list[Check]
    exempt: dict[str, str]
    steps: dict[str, Step] = field(default_factory=dict)
    sweep: Sweep = field(default_factory=Sweep)

    @property
    def noise(self) -> dict[str, list[float | None] | float]:
        """The noise floors, by output and case."""
        return by_output(self.cases)

    def write(self, directory: Path) -> list[CaseFile]:
        """Write the cases to *directory*, one npz each."""
        return [write_case(directory, index, case) for index, case in enumerate(self.cases)]


def tolerances(out: Surveyed) -> Tolerance:
    """Return the tolerance that the measured noise of every output gives."""
    return Tolerance(noise=out.noise, steps=out.steps)


def sensitive(name: str, out: Surveyed, more: Sequence[Case] = ()) -> bool:
    """Whether two cases of the same shapes differ clearly somewhere in this output.

    None of them is lost in noise.
    """
    cases = [*out.cases, *more]
    tolerance = Tolerance(noise=by_output(cases), steps=out.steps)
    kept = [
        (number, case)
        for number, case in enumerate(cases)
        if not lost_in_noise(tolerance, number, case.outputs)
    ] or list(enumerate(cases))
    for (one, a), (other, b) in itertools.combinations(kept, 2):
        x, y = a.outputs[name], b.outputs[name]
        if a.dims != b.dims or x.shape != y.shape or not x.size:
            continue
        if x.dtype.kind != "f":
            if np.any(x != y):
                return True
            continue
        both = np.isfinite(x) & np.isfinite(y)
        gap = np.abs(np.where(both, x, 0).astype(np.float64) - np.where(both, y, 0).astype(np.float64))
        limit = np.maximum(tolerance.threshold(name, x, one), tolerance.threshold(name, y, other))
        if np.any((gap > VACUITY_FACTOR * limit) & both):
            return True
    return False


def vacuity(out: Surveyed) -> Check:
    """Make the ``vacuity`` check: for every output two inputs differ by VACUITY_FACTOR tolerances."""
    dull = [n for n in out.cases[0].outputs if n not in out.exempt and not sensitive(n, out)]
    if dull:
        return catalog.VACUITY.failed(
            f"no two inputs tried move {', '.join(dull)} by {VACUITY_FACTOR:g} tolerances, so a constant"
            " would pass; give inputs that do with --samples or --range",
            subject=", ".join(dull),
        )
    numbers = {"exempt": [f"{n}: {why}" for n, why in out.exempt.items()]} if out.exempt else {}
    return catalog.VACUITY.passed(numbers=numbers)


def noise_checks(out: Surveyed) -> list[Check]:
    """Make the ``noise`` check if a case is lost in the source's own noise.

    It failed if that is a real one, or too few are left.
    """
    tolerance = tolerances(out)
    found = {
        number: words
        for number, case in enumerate(out.cases)
        if (words := lost_in_noise(tolerance, number, case.outputs))
    }
    if not found:
        return []
    told = [f"case {number} ({out.cases[number].origin}): {words}" for number, words in found.items()]
    left = len(out.cases) - len(found)
    real_ones = [number for number in found if real(out.cases[number].origin)]
    names = dict.fromkeys(
        n
        for k in found
        for n, a in out.cases[k].outputs.items()
        if a.dtype.kind == "f" and tolerance.lost_in_noise(n, a, k)
    )
    numbers: dict[str, Figure] = {
        "set_aside": [t for number, t in zip(found, told, strict=True) if number not in real_ones]
    }
    if not real_ones and left >= min(LEAST_CASES, len(out.cases)):
        shown = listed(told, 3, "; ")
        return [
            catalog.NOISE.passed(
                numbers=numbers,
                reason=f"set aside, since the source's own noise is too large there: {shown}",
            )
        ]
    where = (
        f"in the real inputs {', '.join(out.cases[k].origin for k in real_ones)}"
        if real_ones
        else f"in {len(found)} of {len(out.cases)} cases"
    )
    return [
        catalog.NOISE.failed(
            f"the source's own noise floor in {', '.join(names)} is above a tenth of {tolerance.ceiling:g} of"
            f" its largest value {where}: the net can't be told from its noise there; give inputs like those"
            " it was trained on with --samples or --range",
            subject=", ".join(names),
            numbers={"lost_in_noise": told},
        )
    ]


def determinism(net: Net, cases: list[Case]) -> Check:
    """Make the ``determinism`` check: the first case gives the same outputs again."""
    for case in cases[:1]:
        try:
            again = net.run(case.inputs)
        except Refused as error:
            return catalog.DETERMINISM.failed(
                f"the source took an input at first and refused it the second time: {error}; make the"
                f" model keep"
                " no state",
            )
        moved = [
            n
            for n, a in case.outputs.items()
            if n not in again
            or a.shape != again[n].shape
            or not np.array_equal(a, again[n], equal_nan=a.dtype.kind == "f")
        ]
        if moved:
            return catalog.DETERMINISM.failed(
                f"the same input gave another {', '.join(moved)} the second time: a random operator reaches"
                " it, or the model keeps state; make the noise or the state an input of the model",
                subject=", ".join(moved),
            )
    return catalog.DETERMINISM.passed(numbers={"runs": 2})


def write_case(directory: Path, index: int, case: Case) -> CaseFile:
    """Write the inputs and outputs of *case* to ``case-INDEX.npz``."""
    path = directory / f"case-{index}.npz"
    arrays = {f"inputs/{n}": a for n, a in case.inputs.items()} | {
        f"outputs/{n}": a for n, a in case.outputs.items()
    }
    save_arrays(path, arrays)
    return CaseFile(index=index, origin=case.origin, dims=case.dims, file=file_ref(path))
