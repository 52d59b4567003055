"""Cases that have the source compute otherwise, where it decides by the values of its inputs."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any

import numpy as np

from mnnprep.model.files import Arrays
from mnnprep.model.net import Case, Refused
from mnnprep.reference.input_space import InputSpace

MOST_DECISIVE = 6  # values tried because a branch may depend on them
FIRST_TURN = 200  # the number of the inputs of the first of TURNS
# What is tried to turn a decision on values, floating inputs alone.
TURNS: dict[str, Callable[[Any], Any]] = {
    "all positive": np.abs,
    "all negative": lambda x: -np.abs(x),
    "scale 16": lambda x: 16 * x,
    "scale -16": lambda x: -16 * x,
    "zeros": np.zeros_like,
    "ones": np.ones_like,
    "scale 0.01": lambda x: 0.01 * x,
    "scale 1000": lambda x: 1000 * x,
}


def add_decisive(space: InputSpace, values: Sequence[tuple[str, float]], cases: list[Case]) -> None:
    """Add a case for each of the first *values* that its input may hold, the input filled with it."""
    possible = [(name, value) for name, value in values if _may_hold(space, name, value)]
    for name, value in possible[:MOST_DECISIVE]:
        number = len(cases)
        arrays = space.arrays(number)
        arrays[name] = np.full_like(arrays[name], value)
        with suppress(Refused):
            origin = f"seed {space.seed(number)}, {name}={value:g}"
            cases.append(Case(origin, dict(space.base), arrays, space.net.run(arrays)))


def _may_hold(space: InputSpace, name: str, value: float) -> bool:
    spec = next((s for s in space.specs if s.name == name), None)
    if spec is None:
        return False
    low, high = space.declared_range(name)
    return low <= value <= high and (value == int(value) or np.dtype(spec.dtype).kind == "f")


def turn_decisions(space: InputSpace, one_sided: Callable[[], Sequence[str]], cases: list[Case]) -> None:
    """Try inputs of other sizes, of one sign and of zeros while decisions are one-sided.

    Those that turn one are kept as cases.
    """
    for number, (words, change) in enumerate(TURNS.items(), start=FIRST_TURN):
        open_ = len(one_sided())
        if not open_:
            return
        arrays = _changed(space, space.arrays(number), change)
        with suppress(Refused):
            outputs = space.net.run(arrays)
            if len(one_sided()) < open_:
                cases.append(Case(f"seed {space.seed(number)}, {words}", dict(space.base), arrays, outputs))


def _changed(space: InputSpace, arrays: Arrays, change: Callable[[Any], Any]) -> Arrays:
    """The floating inputs changed, as far as their declared ranges let them."""
    made = dict(arrays)
    for spec in space.specs:
        if arrays[spec.name].dtype.kind == "f":
            low, high = space.declared_range(spec.name)
            clipped = np.clip(change(arrays[spec.name]), low, high)
            made[spec.name] = np.asarray(clipped, spec.dtype)  # without dimensions it is no array by itself
    return made
