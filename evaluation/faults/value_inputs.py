"""Inputs for judging faults that show for some values alone: drawn as a user would, and wild ones.

Nothing here is mnnprep's: a wild input is a sum of fields of random scales, and what a fault needs to be seen
is searched by climbing from the wildest.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np

from evaluation.faults.judge import Arrays

Array = np.ndarray[Any, Any]
Inputs = Sequence[tuple[str, str, tuple[int, ...]]]
Ranges = dict[str, tuple[float, float]]
NATURAL = 16.0  # what floats without a range may have


def ordinary(inputs: Inputs, ranges: Ranges, seed: int) -> Arrays:
    """Uniform in its range; standard normal without one, now and then 4 or 16 times as large."""
    random = np.random.default_rng([seed, 1])
    made = {}
    for name, dtype, shape in inputs:
        if dtype.startswith("int"):
            low, high = ranges[name]
            made[name] = random.integers(int(low), int(high) + 1, shape).astype(dtype)
        elif name in ranges:
            made[name] = random.uniform(*ranges[name], shape).astype(np.float32)
        else:
            scale = (1.0, 1.0, 4.0, 16.0)[seed % 4]
            values = np.clip(random.standard_normal(shape) * scale, -NATURAL, NATURAL)
            made[name] = values.astype(np.float32)
    return made


def wild(inputs: Inputs, ranges: Ranges, seed: int) -> Arrays:
    random = np.random.default_rng([seed, 2])
    made = {}
    for name, dtype, shape in inputs:
        low, high = ranges.get(name, (-NATURAL, NATURAL))
        if dtype.startswith("int"):
            made[name] = _whole(shape, int(low), int(high), random).astype(dtype)
            continue
        middle, span = (low + high) / 2, (high - low) / 2
        whole = np.zeros(shape)
        for axes in range(len(shape) + 1):
            kept = tuple(n if axis < axes else 1 for axis, n in enumerate(shape))
            whole = whole + random.standard_normal(kept) * 10 ** random.uniform(-2, 0.7)
        keep = random.random(shape) < random.choice([1.0, 1.0, 0.3])
        made[name] = np.clip(middle + span * whole * keep, low, high).astype(np.float32)
    return made


def _whole(shape: tuple[int, ...], low: int, high: int, random: np.random.Generator) -> Array:
    if high == 1:
        kept = random.random(shape) < random.choice([0.05, 0.3, 0.7, 0.97])
        return np.where(kept.any(-1, keepdims=True), kept, np.arange(shape[-1]) == 0).astype(np.int64)
    if random.random() < 0.5:
        return np.full(shape, random.integers(low, high + 1))
    return random.integers(low, high + 1, shape)


def odd(inputs: Inputs, ranges: Ranges, constants: Sequence[float]) -> Iterator[Arrays]:
    """Inputs of one number: the constants of a graph, halves, zeros; every id; and masks of some ones."""
    base = ordinary(inputs, ranges, 0)
    for name, dtype, shape in inputs:
        low, high = ranges.get(name, (-NATURAL, NATURAL))
        if dtype.startswith("int") and high > 1:
            count = int(np.prod(shape))
            for start in range(int(low), int(high) + 1, count):
                ids = (start + np.arange(count)) % (int(high) + 1)
                yield base | {name: ids.reshape(shape).astype(dtype), **_all_ones(inputs, ranges)}
        elif dtype.startswith("int"):
            for ones in (1, 2, 3, shape[-1] - 2, shape[-1] - 1, shape[-1]):
                for shift in (0, 3):
                    bits = np.roll(np.arange(shape[-1]) < ones, shift).astype(np.int64)
                    yield base | {name: np.broadcast_to(bits, shape).astype(dtype)}
        else:
            for value in sorted({*constants, 0.0, 0.5, 1.5, 2.5, -0.5, -1.5, low, high}):
                if low <= value <= high:
                    yield base | {name: np.full(shape, value, np.float32)}


def _all_ones(inputs: Inputs, ranges: Ranges) -> Arrays:
    return {n: np.ones(shape, t) for n, t, shape in inputs if t.startswith("int") and ranges[n][1] == 1}


def climbed(
    inputs: Inputs, ranges: Ranges, start: Arrays, height: Callable[[Arrays], float], steps: int, seed: int
) -> Arrays:
    """*start* after *steps* random steps, each taken back that does not raise *height*."""
    random = np.random.default_rng([seed, 4])
    best, top = start, height(start)
    for _ in range(steps):
        tried = dict(best)
        for name, dtype, shape in inputs:
            if dtype != "float32":
                continue
            low, high = ranges.get(name, (-NATURAL, NATURAL))
            step = (high - low) * 10 ** random.uniform(-2, 0) * random.standard_normal(shape)
            places = random.random(shape) < random.choice([0.02, 0.2, 1.0])
            tried[name] = np.clip(tried[name] + np.where(places, step, 0.0), low, high).astype(np.float32)
        reached = height(tried)
        if reached > top:
            best, top = tried, reached
    return best
