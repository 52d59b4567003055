"""The messages of the conformance steps."""

from __future__ import annotations

from typing import Literal

import msgspec

from mnnprep.model.reach import ReadPath, WritePath

Variant = Literal["fed", "frozen"]
Status = Literal["right", "wrong", "shape", "refused", "crash", "run error", "timeout", "unfed"]
STATUSES: tuple[Status, ...] = (
    "right",
    "wrong",
    "shape",
    "refused",
    "crash",
    "run error",
    "timeout",
    "unfed",
)


class CollectJob(msgspec.Struct, frozen=True, kw_only=True):
    """Write the cases to ``directory``.

    In the variant ``frozen`` every input but the first is an initializer.
    """

    directory: WritePath
    variant: Variant


class ConformanceCase(msgspec.Struct, frozen=True, kw_only=True):
    """A model with inputs and the outputs it must give.

    ``data`` is an npz of ``inputs/NAME`` and ``outputs/NAME``; ``inputs`` and ``outputs`` map the names to
    the ONNX dtypes, in the graph's order; ``operator`` is the operator that the case is about (a graph of
    several: empty); ``expanded`` tells a case whose operator was replaced by its function body; ``dtype`` is
    that of the first input. ``unfed`` says why the case can't be stored as plain arrays; then there is no
    ``data``.
    """

    name: str
    variant: Variant
    operator: str
    expanded: bool
    opset: int
    dtype: str
    model: str
    data: str
    inputs: dict[str, str]
    outputs: dict[str, str]
    unfed: str = ""


class Collected(msgspec.Struct, frozen=True, kw_only=True):
    """The cases that were written, in their order."""

    cases: list[ConformanceCase]


class ChecksJob(msgspec.Struct, frozen=True, kw_only=True):
    """Look for hazards in every one of ``models``; ``supported`` as in `CheckJob`."""

    models: list[ReadPath]
    supported: list[str]


class Checked(msgspec.Struct, frozen=True):
    """Per model, the names of the rules that found something wrong, crashing or refused."""

    rules: list[list[str]]


class OracleJob(msgspec.Struct, frozen=True, kw_only=True):
    """Run the converted ``model`` on the inputs in ``data`` and hold its outputs against those in it.

    ``inputs`` and ``outputs`` are the names, in order; ``names`` maps those that the converted model calls
    otherwise.
    """

    model: ReadPath
    data: ReadPath
    inputs: list[str]
    outputs: list[str]
    names: dict[str, str] = msgspec.field(default_factory=dict)


class Judged(msgspec.Struct, frozen=True):
    """``status`` is right, wrong, shape, run error or unfed; ``detail`` says what was seen, in one line."""

    status: Status
    detail: str = ""


class Outcome(msgspec.Struct, frozen=True, kw_only=True):
    """The outcome of a case.

    ``stage`` is where it ended: convert, run, again (a second run in dirty memory), repair, prepare.
    """

    case: str
    variant: Variant
    route: str
    operator: str
    expanded: bool
    opset: int
    dtype: str
    status: Status
    stage: str = ""
    detail: str = ""
    rules: list[str] = msgspec.field(default_factory=list)
    verdict: str = ""
