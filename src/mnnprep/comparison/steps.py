"""Judging a net that rounds while it computes: by the steps between two results, and by what they add up to.

Where a sum lies on the border of two steps, its last bit decides which one an element gets: the source's own
kernels do not agree there.  So an element may be a step off, and a few may, but not many, and not all in one
direction or in proportion to what they are: a wrong scale, zero point or axis is seen in these.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from mnnprep.model.steps import Step

Array = npt.NDArray[Any]

MOST = 2.01  # steps, and what a float32 scale makes of them, that any element may be off
SHARE = 0.05  # of the elements may be off by a step
BIAS = 0.02  # steps, on average over all elements
GAIN = 0.004  # of the reference, by regression
DEVIATIONS = 3.0  # standard deviations of what is counted or averaged
CASE_DEVIATIONS = 5.0  # of what is counted in one of many cases
MOST_NOISE, SHARE_NOISE = 4.0, 0.3  # of the source's own kernels: beyond, it excuses nothing more
KERNELS = 2.0  # times what the source's own kernels differ
LEVELS = 255.0  # of an output without a scale of its own: steps of its range in 8 bits
HALF = 0.5


def allowed_steps(step: Step) -> float:
    """The most steps that an element may be off."""
    return MOST + KERNELS * min(step.most, MOST_NOISE)


def steps_off(step: Step, reference: Array, actual: Array, within: Array) -> Array:
    """How many steps each element of *actual* is off; 0 where it is not beyond *within*."""
    a, b = reference.astype(np.float64), actual.astype(np.float64)
    size = step.size or _size(a)
    with np.errstate(invalid="ignore"):
        steps = np.where(np.abs(b - a) <= within, 0.0, (b - a) / size)
    return np.nan_to_num(steps, posinf=0.0, neginf=0.0)  # whose places are compared apart


def _size(reference: Array) -> float:
    """The step of an output without a scale of its own."""
    return 2 * float(np.abs(reference[np.isfinite(reference)]).max(initial=0.0)) / LEVELS or 1.0


class StepTally:
    """What the elements of one output are off, over all cases."""

    def __init__(self, step: Step) -> None:
        self._step = step
        self._reference: list[Array] = []
        self._off: list[Array] = []

    def add(self, reference: Array, off: Array) -> None:
        """Add a case: its reference, and by how many steps each element is off."""
        self._reference.append(np.nan_to_num(reference.astype(np.float64)).reshape(-1))
        self._off.append(off.reshape(-1))

    def figures(self) -> dict[str, float]:
        """The share of elements that are off, the most steps, the bias in steps, the gain less 1."""
        off, reference = self._flat()
        if not off.size:
            return {}
        gain, _ = self._gain(off, reference)
        return {
            "share": float(np.mean(np.abs(off) > HALF)),
            "most": float(np.abs(off).max()),
            "bias": float(off.mean()),
            "gain": gain,
        }

    def problems(self) -> list[str]:
        """What no rounding at a border explains, in words."""
        off, reference = self._flat()
        if not off.size or not off.any():
            return []
        count = off.size
        step, found = self._step, []
        share = SHARE + KERNELS * min(step.share, SHARE_NOISE)
        for part, deviations in [(off, DEVIATIONS), *((case, CASE_DEVIATIONS) for case in self._off)]:
            wrong = int(np.count_nonzero(np.abs(part) > HALF))
            if wrong > share * part.size + deviations * math.sqrt(share * part.size):
                found.append(
                    f"{wrong} of {part.size} elements are a step off or more, beyond a share of {share:.2g}"
                )
                break
        bias, spread = float(off.mean()), float(off.std()) / math.sqrt(count)
        if abs(bias) > BIAS + DEVIATIONS * spread + min(step.share, SHARE_NOISE) / 4:
            found.append(f"the elements are off by {bias:+.2g} steps on average")
        gain, deviation = self._gain(off, reference)
        if abs(gain) > GAIN + DEVIATIONS * deviation:
            found.append(f"the elements are {gain:+.2%} of the reference off")
        return found

    def _flat(self) -> tuple[Array, Array]:
        if not self._off:
            return np.zeros(0), np.zeros(0)
        return np.concatenate(self._off), np.concatenate(self._reference)

    def _gain(self, off: Array, reference: Array) -> tuple[float, float]:
        """The slope of the error over the reference, and its standard deviation."""
        size = self._step.size or _size(reference)
        around = (reference - reference.mean()) / size
        power = float(np.square(around).sum())
        if power == 0:
            return 0.0, 0.0
        gain = float((around * off).sum()) / power
        return gain, math.sqrt(float(np.square(around * (off - gain * around - off.mean())).sum())) / power


def between_kernels(size: float, pairs: Sequence[tuple[Array, Array]]) -> Step:
    """The step of *size*, with how far the source's own kernels differ: *pairs* are their results."""
    step = Step(size)
    tally = StepTally(step)
    for one, other in pairs:
        tally.add(one, steps_off(step, one, other, np.zeros(())))
    figures = tally.figures()
    return Step(size, figures.get("share", 0.0), figures.get("most", 0.0))
