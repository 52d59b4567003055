"""An evolution of inputs towards the extremes of the values inside a net, and of what lies between them."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from mnnprep.model.files import Arrays
from mnnprep.model.net import Refused
from mnnprep.reference.mutations import child
from mnnprep.reference.proposals import Field

Array = npt.NDArray[Any]
Feature = tuple[str, str]  # of a value: its name, and which of its figures

GAIN = 0.01  # of a figure: what counts as getting further
FEW = 64  # elements: those of a larger value lie all over its range in any case
BINS = 12  # of the range of a value of FEW
MOST_KEPT = 1 << 26  # bytes of inputs that are kept


@dataclass
class _Candidate:
    name: str
    arrays: Arrays
    before: Arrays | None  # what it was made of, if that was a gain
    points: dict[str, Array]  # its values of few elements


@dataclass
class _Record:
    """The furthest that a figure of a value has got, and by which candidate.

    ``start`` is how far the inputs known before took it; ``idle`` counts steps that gained nothing.
    """

    height: float
    holder: int
    start: float = -math.inf
    idle: int = 0


class Evolution:
    """A population of inputs, each of which took some value further than all before it.

    *run* gives the values that an input leads to; *fields* are the inputs' places; *random* chooses.
    """

    def __init__(
        self,
        run: Callable[[Arrays], Mapping[str, Array]],
        fields: Sequence[Field],
        random: np.random.Generator,
    ) -> None:
        self.tried = 0
        self._run = run
        self._fields = fields
        self._random = random
        self._candidates: list[_Candidate] = []
        self._records: dict[Feature, _Record] = {}
        self._known = 0  # the first of them, which are not the evolution's own
        self._most = max(1, MOST_KEPT // max(1, 4 * sum(f.size for f in fields)))

    @property
    def values(self) -> int:
        """How many values are watched."""
        return len({name for name, _ in self._records})

    @property
    def widened(self) -> int:
        """How many of them got further than the known inputs took them."""
        return len({name for (name, _), record in self._records.items() if record.height > record.start})

    def start(self, known: Sequence[Arrays]) -> None:
        """Begin where the *known* inputs get."""
        for arrays in known:
            self.add("", arrays)
        self._known = len(self._candidates)
        for record in self._records.values():
            record.start = record.height

    def add(self, name: str, arrays: Arrays) -> bool:
        """Run a candidate. Whether the net has finite numbers for it."""
        return self._add(name, arrays, None, None) is not None

    def _add(self, name: str, arrays: Arrays, before: Arrays | None, goal: Feature | None) -> bool | None:
        """Run a candidate, and keep it. Whether it got further at its *goal*; None without finite numbers."""
        self.tried += 1
        try:
            values = self._run(arrays)
        except Refused:
            return None
        figures = _figures(values)
        if figures is None:
            return None
        reached, kept = False, len(self._candidates)
        for feature, figure in figures.items():
            record = self._records.get(feature)
            if record is None:
                self._records[feature] = _Record(figure, kept)
            elif figure > record.height + GAIN * abs(record.height):
                record.height, record.holder = figure, kept
                reached = reached or feature == goal
        if kept < self._most or any(r.holder == kept for r in self._records.values()):
            self._candidates.append(_Candidate(name, arrays, before if reached else None, _points(values)))
        return reached

    def climb(self) -> None:
        """One step from the holder of the record that gained last, or was tried least."""
        if not self._records:
            self.tried += 1
            return
        feature, record = min(self._records.items(), key=lambda item: item[1].idle)
        parent = self._candidates[record.holder]
        other = self._candidates[int(self._random.integers(0, len(self._candidates)))]
        made = child(self._fields, parent.arrays, other.arrays, parent.before, self._random)
        name = f"evolved towards the {feature[1]} of {feature[0]}"
        gained = self._add(name, made, parent.arrays, feature)
        record.idle = max(record.idle - 1, 0) if gained else record.idle + 1

    def best(self, most: int, taken: Sequence[Arrays]) -> list[tuple[str, Arrays]]:
        """At most *most* candidates that hold records, those of most records first; none of those *taken*."""
        there = {id(arrays) for arrays in taken}
        held: dict[int, int] = {}
        for record in self._records.values():
            if record.height > record.start:
                held[record.holder] = held.get(record.holder, 0) + 1
        order = sorted((p for p in held if p >= self._known), key=lambda place: (-held[place], place))
        found = [self._candidates[place] for place in order]
        return [(c.name, c.arrays) for c in found if id(c.arrays) not in there][:most]

    def between(self, most: int, taken: Sequence[Arrays]) -> list[tuple[str, Arrays]]:
        """At most *most* candidates that lead values of few elements to parts of their range not reached yet.

        The known inputs and those *taken* reach the others.
        """
        hit = self._hit()
        if hit.size == 0:
            return []
        there = {id(arrays) for arrays in taken}
        used = [n for n, c in enumerate(self._candidates) if n < self._known or id(c.arrays) in there]
        open_ = ~hit[used].any(axis=0) if used else np.ones(hit.shape[1], bool)
        found = []
        for _ in range(most):
            gains = (hit & open_).sum(axis=1)
            place = int(gains.argmax())
            if gains[place] == 0:
                break
            open_ &= ~hit[place]
            found.append((self._candidates[place].name, self._candidates[place].arrays))
        return found

    def _hit(self) -> npt.NDArray[np.bool_]:
        """For every candidate, which parts of the ranges of the values of few elements it leads them to."""
        parts = []
        for name in self._candidates[0].points if self._candidates else ():
            rows = [c.points.get(name) for c in self._candidates]
            if any(r is None or r.shape != self._candidates[0].points[name].shape for r in rows):
                continue
            table = np.stack([r for r in rows if r is not None])
            low, high = float(table.min()), float(table.max())
            if high > low:
                bins = np.minimum((table - low) / (high - low) * BINS, BINS - 1).astype(np.int64)
                parts.append(np.stack([(bins == b).any(axis=1) for b in range(BINS)], axis=1))
        return np.concatenate(parts, axis=1) if parts else np.zeros((0, 0), bool)


def _figures(values: Mapping[str, Array]) -> dict[Feature, float] | None:
    """How far each value gets, the higher the further; None if one of them is no number."""
    found: dict[Feature, float] = {}
    for name, value in values.items():
        if not value.size or value.dtype.kind not in "fiub":
            continue
        most, least = float(value.max()), float(value.min())
        if math.isnan(most) or math.isnan(least):
            return None
        if math.isinf(most) or math.isinf(least):
            continue
        found[name, "largest"], found[name, "least"] = most, -least
        if value.dtype.kind == "f":
            found[name, "closest to zero"] = -float(np.abs(value).min())
            if value.size > 1:
                mean = float(value.mean(dtype=np.float64))
                found[name, "highest mean"], found[name, "lowest mean"] = mean, -mean
    return found


def _points(values: Mapping[str, Array]) -> dict[str, Array]:
    """The values of few elements, and the means of the others."""
    found = {}
    for name, value in values.items():
        if value.dtype.kind == "f" and value.size and np.isfinite(value).all():
            few = value.size <= FEW
            found[name] = (
                value.reshape(-1).astype(np.float64) if few else np.asarray([value.mean(dtype=np.float64)])
            )
    return found
