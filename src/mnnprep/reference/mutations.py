"""The steps of an evolution of inputs: one candidate changed, or two of them crossed."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from mnnprep.model.files import Arrays
from mnnprep.reference.proposals import Field

Draw = np.random.Generator
Array = npt.NDArray[Any]

FURTHER = 0.5  # of the steps that go on where the last one got further
STEPS = (1.0, 0.3, 0.1, 0.03)  # of the interval of values
SHARES = (1.0, 0.5, 0.1, 0.02)  # of the elements


def child(
    fields: Sequence[Field], parent: Arrays, other: Arrays, before: Arrays | None, random: Draw
) -> Arrays:
    """A candidate made of *parent*, now and then crossed with *other*.

    *before* is what *parent* was made of, if that was a gain: a step on in the same direction is then likely.
    """
    if before is not None and random.random() < FURTHER:
        return {f.name: _further(f.field, parent[f.name], before[f.name], random) for f in _named(fields)}
    made = dict(parent)
    named = _named(fields)
    alone = len(named) > 1 and random.random() < 0.5
    for f in [named[int(random.integers(0, len(named)))]] if alone else named:
        change = FLOAT_CHANGES if f.field.kind == "float" else WHOLE_CHANGES
        made[f.name] = change[int(random.integers(0, len(change)))](
            f.field, made[f.name], other[f.name], random
        )
    return made


class _Named:
    def __init__(self, field: Field) -> None:
        self.field, self.name = field, field.spec.name


def _named(fields: Sequence[Field]) -> list[_Named]:
    return [_Named(f) for f in fields]


def _further(field: Field, now: Array, before: Array, random: Draw) -> Array:
    """The step that led to *now* once more, one to four times as far."""
    if field.kind != "float":
        return now
    step = now.astype(np.float64) - before
    return field.cast(now + float(random.uniform(1.0, 4.0)) * step)


def _places(field: Field, random: Draw) -> Array:
    """Some elements: a share of all, a run of them, or one place of the last axis."""
    way = int(random.integers(0, 3))
    if way == 0 or not field.shape:
        share = SHARES[int(random.integers(0, len(SHARES)))]
        return np.asarray(random.random(field.shape) < share)
    axis = int(random.integers(0, len(field.shape)))
    length = field.shape[axis]
    start = int(random.integers(0, max(length, 1)))
    width = 1 if way == 1 else int(random.integers(1, max(length, 1) + 1))
    index = np.arange(length)
    chosen = (index >= start) & (index < start + width)
    shape = [1] * len(field.shape)
    shape[axis] = length
    return np.broadcast_to(chosen.reshape(shape), field.shape)


def _nudge(field: Field, now: Array, other: Array, random: Draw) -> Array:  # noqa: ARG001
    step = STEPS[int(random.integers(0, len(STEPS)))] * (field.high - field.low)
    moved = now + step * random.standard_normal(field.shape)
    return field.cast(np.where(_places(field, random), moved, now))


def _to_border(field: Field, now: Array, other: Array, random: Draw) -> Array:  # noqa: ARG001
    border = field.low if random.random() < 0.5 else field.high
    return field.cast(np.where(_places(field, random), border, now))


def _flip(field: Field, now: Array, other: Array, random: Draw) -> Array:  # noqa: ARG001
    middle = (field.low + field.high) / 2
    return field.cast(np.where(_places(field, random), 2 * middle - now, now))


def _scale(field: Field, now: Array, other: Array, random: Draw) -> Array:  # noqa: ARG001
    factors = (0.0, 0.1, 0.5, 0.9, 1.1, 2.0, 8.0)
    return field.cast(now * factors[int(random.integers(0, len(factors)))])


def _cross(field: Field, now: Array, other: Array, random: Draw) -> Array:
    return field.cast(np.where(_places(field, random), other, now))


def _towards(field: Field, now: Array, other: Array, random: Draw) -> Array:
    """On the line through both, between them or beyond."""
    share = float(random.uniform(-1.0, 2.0))
    return field.cast(now + share * (other.astype(np.float64) - now))


def _redraw(field: Field, now: Array, other: Array, random: Draw) -> Array:  # noqa: ARG001
    drawn = np.floor(random.uniform(field.low, field.high + 1, field.shape))
    return field.cast(np.where(_places(field, random), drawn, now))


FLOAT_CHANGES = (_nudge, _to_border, _flip, _scale, _cross, _towards, _nudge)
WHOLE_CHANGES = (_redraw, _to_border, _cross, _redraw)
