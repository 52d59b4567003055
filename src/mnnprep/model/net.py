"""The objects that a survey drives: a loaded, untouched source, and one case of it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Protocol

from mnnprep.model.files import Arrays
from mnnprep.model.signature import Dim, Range, TensorSpec

# Operators, in any framework's spelling without underscores, whose result is a choice or an order: where
# values tie, each may give another.
RANKING = frozenset(
    {
        "topk",
        "topkv2",
        "sort",
        "argsort",
        "argmax",
        "argmin",
        "nms",
        "nonmaxsuppression",
        "nonmaxsuppressionv2",
        "nonmaxsuppressionv3",
        "nonmaxsuppressionv4",
        "nonmaxsuppressionv5",
        "detectionoutput",
        "detectionpostprocess",
        "msort",
        "kthvalue",
        "searchsorted",
        "unique",
    }
)


def any_ranks(operators: Iterable[str]) -> bool:
    """Whether one of *operators* is of RANKING."""
    return any(name.rpartition(":")[2].replace("_", "").lower() in RANKING for name in operators)


# What code raises that is wrong, whatever it is given; now and then for one size alone.
PROGRAMMING = (NameError, AttributeError, ImportError, TypeError, NotImplementedError, SyntaxError)


class Refused(Exception):
    """The net can't compute with these inputs (a shape or value it does not take)."""


class Net(Protocol):
    """A loaded source. ``inputs`` are as the source declares them; ``run`` raises Refused."""

    inputs: tuple[TensorSpec, ...]
    example: Arrays  # real inputs that came with the source, or empty
    dims: tuple[Dim, ...]  # ranges that the source itself declares

    def run(self, inputs: Arrays) -> Arrays:
        """The outputs by name, in order."""

    def run_precise(self, inputs: Arrays) -> Arrays | None:
        """The same in float64 throughout, or None if the framework can't."""

    def bounds(self, inputs: Arrays) -> dict[str, Range]:
        """The index ranges of integer inputs that the net looks up in tables, from one run."""

    def insensitive(self) -> dict[str, str]:
        """Outputs that by design don't depend on the values of any input, with the reason."""


@dataclass
class Case:
    """``noise`` is the measured noise floor of every floating output, None if it was not measured."""

    origin: str
    dims: dict[str, int]
    inputs: Arrays
    outputs: Arrays
    noise: dict[str, float] | None = None
