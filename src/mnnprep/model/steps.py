"""The step of an output of a net that rounds while it computes."""

from __future__ import annotations

import msgspec


class Step(msgspec.Struct, frozen=True):
    """The step of an output: the difference of two neighbouring values, in the output's own unit.

    ``size`` is 1 for stored integers, and 0 for an output that has no scale of its own though numbers before
    it are rounded: then it is 1/255 of the range of each case.  ``share`` of its elements differ between the
    source's own kernels by a step or more, by ``most`` steps at most.
    """

    size: float
    share: float = 0.0
    most: float = 0.0


class Quantized(msgspec.Struct, frozen=True):
    """How the integers of an input or output stand for numbers: ``real = scale * (stored - zero_point)``."""

    scale: float
    zero_point: int
