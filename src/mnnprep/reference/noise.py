"""The source's own rounding: how far it moves each output of each case."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from mnnprep.comparison.tolerance import WIDENING, Tolerance, peak_of
from mnnprep.model.files import Arrays
from mnnprep.model.net import Case, Net, Refused


def measure_all(net: Net, cases: Sequence[Case], seed: int) -> None:
    """Measure the noise floor of the first of *cases*, and of each other that needs it.

    One does not if its noise is far below what is allowed anyway.
    """
    first = cases[0]
    if first.noise is None:
        first.noise = measure_noise(net, first, seed)
    for case in cases[1:]:
        if case.noise is None and _matters(first, case):
            case.noise = measure_noise(net, case, seed)


def _matters(first: Case, case: Case) -> bool:
    """Whether the noise of the *first* case would widen the tolerance in *case*.

    It is taken as it is or in proportion to the outputs.
    """
    for name, noise in (first.noise or {}).items():
        ours, peak = peak_of(first.outputs[name].reshape(-1)), peak_of(case.outputs[name].reshape(-1))
        if WIDENING * max(noise, noise * peak / ours if ours else 0.0) > Tolerance().absolute * peak:
            return True
    return False


def measure_noise(net: Net, case: Case, seed: int) -> dict[str, float]:
    """Measure the noise floor of every floating output.

    It is float32 against float64 if the framework can, else :func:`estimate_noise`.
    """
    precise = net.run_precise(case.inputs)
    return estimate_noise(net, case, seed) if precise is None else _gaps(case, precise)


def estimate_noise(net: Net, case: Case, seed: int) -> dict[str, float]:
    """Return the largest change of every floating output under one-ulp perturbations.

    The floating inputs are perturbed. It is 0.3 to 2 times what float64 shows, on the 60 nets of
    evaluation/zoo.py that have such inputs, for one more run.
    """
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


def nudged(arrays: Arrays, seed: int) -> Arrays:
    """Every floating number of *arrays* one ulp up or down; a number without dimensions stays an array."""
    rng = np.random.Generator(np.random.PCG64([seed, 1]))
    moved = {}
    for name, array in arrays.items():
        if array.dtype.kind == "f":
            towards = np.where(rng.random(array.shape) < 0.5, -np.inf, np.inf).astype(array.dtype)
            moved[name] = np.asarray(np.nextafter(array, towards), array.dtype)
        else:
            moved[name] = array
    return moved


def _perturbed(net: Net, case: Case, seed: int) -> Arrays | None:
    moved = nudged(case.inputs, seed)
    try:
        return net.run(moved)
    except Refused:
        return None


def by_output(cases: Sequence[Case]) -> dict[str, list[float | None] | float]:
    """The noise floors as a :class:`Tolerance` has them."""
    names = dict.fromkeys(n for case in cases for n in case.noise or {})
    return {
        name: [case.noise.get(name) if case.noise is not None else None for case in cases] for name in names
    }
