"""Inputs that reach where random ones do not: borders, ties, spikes, all magnitudes, every id, odd masks.

Faults that show for some values alone lie beyond a bound, at a border, at a tie or in one row of a table.
Each proposal is one idea of where, applied to every input by its kind; each is made of its seed alone, by
sums, products and comparisons, so that it has the same bytes on every system.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from mnnprep.model.files import Arrays
from mnnprep.model.signature import Range, TensorSpec
from mnnprep.reference.inputs import is_mask, run_mask, synthesize
from mnnprep.reference.redraws import is_binary
from mnnprep.reference.structured import VARIANTS, structured

Floats = npt.NDArray[np.float64]
Draw = np.random.Generator
Make = Callable[["Field", Draw], npt.NDArray[Any]]

REACHES = (
    4.0,
    16.0,
)  # of floats that nobody gave a range: an ordinary one, and that of the survey's widest case
SWEEPS = 24  # of all ids, one after the other
RANK_OF_ROWS = 2
PLAIN = (0.0, 1.0, -1.0, 0.5, -0.5, 2.0, -2.0)  # values at which functions often change


@dataclass(frozen=True)
class Field:
    """One input at its size: what a proposal fills.

    ``low`` and ``high`` bound its values, ``near`` are constants of the model that it may be compared with.
    """

    spec: TensorSpec
    shape: tuple[int, ...]
    low: float
    high: float
    near: tuple[float, ...]

    @property
    def size(self) -> int:
        """The number of its elements."""
        return math.prod(self.shape)

    @property
    def kind(self) -> str:
        """What it holds: ``float``, ``ids`` or ``mask``."""
        return kind_of(self.spec)

    def cast(self, values: npt.NDArray[Any]) -> npt.NDArray[Any]:
        """*values* within the bounds, in the shape and dtype of the input."""
        dtype = np.dtype(self.spec.dtype)
        whole = np.asarray(values).reshape(self.shape)
        if dtype.kind == "b":
            return np.asarray(whole != 0)
        kept = np.clip(whole, self.low, self.high)
        return np.asarray(np.rint(kept) if dtype.kind in "iu" else kept).astype(dtype)


def kind_of(spec: TensorSpec) -> str:
    """What an input holds: ``float``, ``ids`` (whole numbers of a range) or ``mask`` (0 and 1)."""
    if np.dtype(spec.dtype).kind == "f":
        return "float"
    if spec.dtype == "uint8" and spec.range is None:
        return "ids"
    return "mask" if spec.range is None or is_mask(spec) or is_binary(spec, spec.range) else "ids"


def bounds_of(spec: TensorSpec, reach: float = REACHES[-1]) -> Range:
    """The values that an input may have: its range, else what is natural for its kind."""
    kind = kind_of(spec)
    if kind == "float":
        return spec.range or (-reach, reach)
    if kind == "mask":
        return 0.0, 1.0
    low, high = spec.range or (0.0, 255.0)
    return math.ceil(low), math.floor(high)


def proposals(
    specs: Sequence[TensorSpec], sizes: Mapping[str, int], seed: int, near: Sequence[float]
) -> Iterator[tuple[str, Arrays]]:
    """Every proposal with its name: first for all inputs together, then for one, beside ordinary others.

    *near* are constants of the model that its values may be compared with.
    """
    tables = [_ideas(spec, spec.sizes(sizes), tuple(near)) for spec in specs]
    most = max(map(len, tables))
    for number in range(most):
        made: Arrays = {}
        words = []
        for place, ideas in enumerate(tables):
            idea = ideas[number % len(ideas)]
            made[specs[place].name] = idea.made(seed, number, place)
            words.append(idea.name)
        yield " and ".join(dict.fromkeys(words)), made
    quiet = {s.name: _quiet(s, s.sizes(sizes), seed) for s in specs}
    for place, spec in enumerate(specs):
        for number, idea in enumerate(_in_turn(spec, spec.sizes(sizes))):
            yield idea.name, quiet | {spec.name: idea.made(seed, number, place)}
    for number in range(most if len(specs) > 1 else 0):
        for place, ideas in enumerate(tables):
            if number < len(ideas):
                idea = ideas[number]
                name = specs[place].name
                yield f"{idea.name} in {name}", quiet | {name: idea.made(seed, number, place)}


@dataclass(frozen=True)
class _Idea:
    name: str
    field: Field
    make: Make

    def made(self, seed: int, number: int, place: int) -> npt.NDArray[Any]:
        random = np.random.Generator(np.random.PCG64([seed, number, place, 7]))
        return self.field.cast(self.make(self.field, random))


def _quiet(spec: TensorSpec, shape: tuple[int, ...], seed: int) -> npt.NDArray[Any]:
    """An ordinary input, beside which another one varies; a mask that hides nothing."""
    if kind_of(spec) == "mask":
        return np.ones(shape, spec.dtype)
    ranges = {spec.name: spec.range} if spec.range is not None else {}
    plain = TensorSpec(spec.name, spec.dtype, shape, spec.range)
    return synthesize((plain,), {}, seed, ranges)[spec.name]


def _in_turn(spec: TensorSpec, shape: tuple[int, ...]) -> list[_Idea]:
    """All ids of an input, over as many inputs as that takes, or SWEEPS."""
    if kind_of(spec) != "ids":
        return []
    low, high = bounds_of(spec)
    field = Field(spec, shape, low, high, ())
    parts = min(SWEEPS, max(1, math.ceil((high - low + 1) / max(field.size, 1))))
    return [_Idea(f"ids in turn, part {n + 1} of {parts}", field, _sweep(n, parts)) for n in range(parts)]


def _ideas(spec: TensorSpec, shape: tuple[int, ...], near: tuple[float, ...]) -> list[_Idea]:
    kind = kind_of(spec)
    if kind != "float" or spec.range is not None:
        field = Field(spec, shape, *bounds_of(spec), near)
        return [_Idea(name, field, make) for name, make in TABLES[kind].items()]
    found = []
    for reach in REACHES:
        wide = Field(spec, shape, -reach, reach, near)
        found += [_Idea(f"{name} up to {reach:g}", wide, make) for name, make in FLOATS.items()]
    return found


# --- floats


def _between(field: Field, random: Draw, shape: tuple[int, ...] | None = None) -> Floats:
    return np.asarray(random.uniform(field.low, field.high, field.shape if shape is None else shape))


def _ramp(field: Field, _: Draw) -> Floats:
    return np.linspace(field.low, field.high, field.size)


def _corners(field: Field, random: Draw) -> Floats:
    return np.where(random.uniform(0, 1, field.shape) < 0.5, field.low, field.high)


def _constant(share: float) -> Make:
    return lambda field, _: np.full(field.shape, field.low + share * (field.high - field.low))


def _spikes(field: Field, random: Draw) -> Floats:
    """All zeros but a few elements at the borders."""
    places = random.uniform(0, 1, field.shape) < max(0.02, 1 / max(field.size, 1))
    return np.where(places, _corners(field, random), 0.0)


def _magnitudes(field: Field, random: Draw) -> Floats:
    """Both signs and all magnitudes, from the bounds down to a millionth of them."""
    largest = max(abs(field.low), abs(field.high))
    sizes = np.ldexp(random.uniform(0.5, 1.0, field.shape), -random.integers(0, 21, field.shape))
    return np.where(random.uniform(0, 1, field.shape) < 0.5, -largest, largest) * sizes


def _halves(field: Field, random: Draw) -> Floats:
    return np.floor(_between(field, random)) + 0.5


def _whole(field: Field, random: Draw) -> Floats:
    return np.rint(_between(field, random))


def _near(field: Field, random: Draw) -> Floats:
    """Constants of the model, the floats next to them, and what is just beyond; each element another."""
    known = np.asarray((*PLAIN, *field.near))
    chosen = known[random.integers(0, len(known), field.shape)]
    dtype = np.dtype(field.spec.dtype)
    exact = chosen.astype(dtype)
    up = np.nextafter(exact, np.asarray(np.inf, dtype)).astype(np.float64)
    down = np.nextafter(exact, np.asarray(-np.inf, dtype)).astype(np.float64)
    turn = random.integers(0, 8, field.shape)
    options = [chosen, chosen, chosen, up, down, chosen * 1.01, chosen * 0.99, -chosen]
    return np.asarray(np.choose(turn, options), np.float64)


def _levels(field: Field, random: Draw) -> Floats:
    """Three values alone, so that most elements tie."""
    steps = np.asarray([0.25, 0.5, 0.75])[random.integers(0, 3, field.shape)]
    return np.asarray(field.low + steps * (field.high - field.low))


def _per_row(field: Field, random: Draw) -> Floats:
    """One value along each row of the last two axes (of the last one, where there are no more)."""
    lead = field.shape[: max(len(field.shape) - RANK_OF_ROWS, 0)] if len(field.shape) > 2 else field.shape[:1]
    values = _between(field, random, lead)
    return np.broadcast_to(values.reshape((*lead, *[1] * (len(field.shape) - len(lead)))), field.shape)


def _one_sign(low: bool) -> Make:
    def make(field: Field, random: Draw) -> Floats:
        middle = (field.low + field.high) / 2
        part = (field.low, middle) if low else (middle, field.high)
        return np.asarray(random.uniform(*part, field.shape))

    return make


def _checkers(field: Field, _: Draw) -> Floats:
    parity = np.indices(field.shape).sum(axis=0) % 2 if field.shape else np.zeros(())
    return np.where(parity == 0, field.low, field.high)


def _sorted(sign: int) -> Make:
    def make(field: Field, random: Draw) -> Floats:
        values = _between(field, random)
        return np.asarray(sign * np.sort(sign * values, axis=-1) if field.shape else values, np.float64)

    return make


def _one_hot(field: Field, random: Draw) -> Floats:
    """One element of each row at its upper bound, the others at zero."""
    if not field.shape:
        return np.full((), field.high)
    places = random.integers(0, max(field.shape[-1], 1), (*field.shape[:-1], 1))
    return np.where(np.arange(field.shape[-1]) == places, field.high, 0.0)


def _half_and_half(field: Field, random: Draw) -> Floats:
    """Ordinary values, with every fourth row at the borders."""
    quiet = random.standard_normal(field.shape) if field.low < 0 < field.high else _between(field, random)
    rows = random.uniform(0, 1, (*field.shape[:-1], 1) if field.shape else ()) < 0.25
    return np.where(rows, _corners(field, random), quiet)


def _small(field: Field, random: Draw) -> Floats:
    return np.asarray(_between(field, random) * 2.0**-10)


def _structured(variant: int) -> Make:
    def make(field: Field, random: Draw) -> npt.NDArray[Any]:
        made = structured(field.spec, field.shape, int(random.integers(0, 1 << 30)), variant)
        return _between(field, random) if made is None else made

    return make


FLOATS: dict[str, Make] = {  # the ones that find most come first, for a large net takes only some
    "corners": _corners,
    "a ramp": _ramp,
    "constants of the model": _near,
    "all magnitudes": _magnitudes,
    "the upper bound": _constant(1.0),
    "the lower bound": _constant(0.0),
    "zeros": lambda field, _: np.zeros(field.shape),
    "halves": _halves,
    "spikes": _spikes,
    "whole numbers": _whole,
    "one value a row": _per_row,
    "uniform": _between,
    "few levels": _levels,
    "the upper half": _one_sign(False),
    "the lower half": _one_sign(True),
    "one element a row": _one_hot,
    "some rows at the borders": _half_and_half,
    "ascending": _sorted(1),
    "descending": _sorted(-1),
    "checkers": _checkers,
    "small values": _small,
    "three quarters": _constant(0.75),
    "a quarter": _constant(0.25),
    **{f"structured {variant}": _structured(variant) for variant in range(VARIANTS)},
}

# --- whole numbers


def _borders(field: Field, random: Draw) -> Floats:
    """Ids at the ends of the table, at powers of two, at round numbers, at constants of the model."""
    known = {field.low, field.low + 1, field.high, field.high - 1, field.high - 2, 0.0, -1.0, 1.0}
    for power in range(1, 32):
        known |= {sign * float(1 << power) + by for sign in (1, -1) for by in (-1, 0, 1)}
    known |= {base * ten for ten in (10.0, 100.0, 1e3, 1e4) for base in (1, 5)}
    known |= {float(round(c)) + by for c in field.near for by in (-1, 0, 1)}
    fitting = np.asarray(sorted(v for v in known if field.low <= v <= field.high))
    return np.asarray(fitting[random.integers(0, len(fitting), field.shape)])


def _sweep(part: int, parts: int) -> Make:
    """All ids in turn, or if they are too many for *parts* arrays, as many at equal distances."""

    def make(field: Field, _: Draw) -> Floats:
        span, room = field.high - field.low + 1, parts * field.size
        places = part * field.size + np.arange(field.size)
        offsets = places % span if span <= room else np.floor(places * (span / room))
        return np.asarray(field.low + offsets, np.float64)

    return make


def _drawn(field: Field, random: Draw) -> Floats:
    return np.floor(random.uniform(field.low, field.high + 1, field.shape))


def _pairs(field: Field, random: Draw) -> Floats:
    """Every id twice in a row."""
    drawn = _drawn(field, random).reshape(-1)
    return np.repeat(drawn, 2)[: field.size]


def _ends(field: Field, _: Draw) -> Floats:
    return np.where(np.arange(field.size) % 2 == 0, field.low, field.high)


IDS: dict[str, Make] = {
    "ids at the borders": _borders,
    "the last id": _constant(1.0),
    "the first id": _constant(0.0),
    "first and last id": _ends,
    "other ids at the borders": _borders,
    "ids drawn at random": _drawn,
    "every id twice": _pairs,
    "ids in descending order": _sorted(-1),
    **{f"structured ids {variant}": _structured(variant) for variant in range(VARIANTS)},
}

# --- masks


def _where(test: Callable[[npt.NDArray[np.int64], int], npt.NDArray[np.bool_]]) -> Make:
    def make(field: Field, _: Draw) -> npt.NDArray[Any]:
        length = field.shape[-1] if field.shape else 1
        return np.broadcast_to(test(np.arange(length), length), field.shape or (1,))

    return make


def _share(share: float) -> Make:
    return lambda field, random: random.uniform(0, 1, field.shape) < share


def _padding(field: Field, random: Draw) -> npt.NDArray[Any]:
    return run_mask(field.shape, random) if field.shape else np.ones(())


def _leading(field: Field, random: Draw) -> npt.NDArray[Any]:
    """Padding at the front."""
    return np.flip(_padding(field, random), axis=-1) if field.shape else np.zeros(())


MASKS: dict[str, Make] = {
    "all ones": _where(lambda i, n: i >= 0),
    "the first alone": _where(lambda i, n: i == 0),
    "the last alone": _where(lambda i, n: i == n - 1),
    "all but the first": _where(lambda i, n: i > 0),
    "all but the last": _where(lambda i, n: i < n - 1),
    "a hole in the middle": _where(lambda i, n: i != n // 2),
    "every other one": _where(lambda i, n: i % 2 == 0),
    "all but every other one": _where(lambda i, n: i % 2 == 1),
    "half of them": _share(0.5),
    "few ones": _share(0.1),
    "few zeros": _share(0.9),
    "padding": _padding,
    "padding at the front": _leading,
    "the first half": _where(lambda i, n: i < (n + 1) // 2),
    "the second half": _where(lambda i, n: i >= n // 2),
    "all zeros": _where(lambda i, n: i < 0),
}

TABLES = {"float": FLOATS, "ids": IDS, "mask": MASKS}
