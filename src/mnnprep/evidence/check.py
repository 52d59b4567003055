"""A check: one question with three possible answers, and its figures.

Checks are made from the rows of :mod:`mnnprep.evidence.catalog`, or decoded from a manifest.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from enum import Enum

import msgspec

Figure = int | float | str | Sequence[int | str]
Figures = Mapping[str, Figure]  # what whoever asks has to say, by name
Numbers = dict[str, int | float | str | list[int | str]]


class Status(Enum):
    """How a check ended."""

    PASSED = "passed"
    FAILED = "failed"
    NOT_RUN = "not_run"


class OutputError(msgspec.Struct, frozen=True, omit_defaults=True):
    """One output's error in one case.

    ``max_abs`` is max|a-b|, ``max_rel`` max|a-b|/|ref| where ref is not 0, ``cosine`` the cosine
    similarity, ``sqnr_db`` 10*log10(sum ref^2 / sum (a-b)^2) (absent when there is no error),
    ``excess`` the largest |a-b| divided by the tolerance at its element: above 1 is a failure.
    ``problem`` says why a comparison of numbers was not possible (shape, dtype, non-finite places).
    """

    output: str
    case: int
    max_abs: float | None = None
    max_rel: float | None = None
    cosine: float | None = None
    sqnr_db: float | None = None
    excess: float | None = None
    problem: str = ""


class Check(msgspec.Struct, frozen=True, omit_defaults=True, kw_only=True):
    """One question with three possible answers.

    ``subject`` is what it was asked of (a node, an output, a dimension); ``reason`` why it failed or
    did not run; ``numbers`` its figures by name; ``outputs`` the errors behind a comparison.
    """

    check: str
    status: Status
    required: bool = True
    reason: str = ""
    subject: str = ""
    numbers: Numbers = msgspec.field(default_factory=dict)
    outputs: list[OutputError] = msgspec.field(default_factory=list)
