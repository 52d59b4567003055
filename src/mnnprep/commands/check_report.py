"""The result of `check`."""

from __future__ import annotations

import msgspec

from mnnprep.repair.rule import Severity

HAZARDOUS: tuple[Severity, ...] = ("wrong", "crash", "refused")


class Hazard(msgspec.Struct, frozen=True, kw_only=True):
    """One place that MNN refuses, crashes on, gets wrong or narrows.

    ``rule`` is the hazard's id; ``node`` the operator and name, or the name of a value; ``source`` the line
    of the model's own code (``file:line``) where the exporter left one; ``repaired``: `prepare` has a rewrite
    for it.
    """

    rule: str
    severity: Severity
    hazard: str
    remedy: str
    node: str
    operator: str
    detail: str = ""
    source: str = ""
    repaired: bool = False


class Measured(msgspec.Struct, frozen=True, kw_only=True):
    """An operator of the model that MNN does not get right in all of ONNX's own cases.

    No rule speaks of it here. ``engine`` is the version that was measured with what the installed converter
    writes; empty: the installed one.
    """

    operator: str
    cases: int
    right: int
    engine: str = ""


class CheckReport(msgspec.Struct, frozen=True, kw_only=True):
    """The result of `check`; ``measured`` are hints of the operator table, not findings.

    ``mnn`` is the version of the MNN whose operators were asked for, empty without one. ``targets`` are those
    that were asked for; ``notes`` what could not be told of them.
    """

    schema: str = "mnnprep.check/1"
    path: str
    kind: str
    opset: int | None
    mnn: str
    operators: dict[str, int]
    hazards: list[Hazard]
    measured: list[Measured] = msgspec.field(default_factory=list)
    targets: list[str] = msgspec.field(default_factory=list)
    notes: list[str] = msgspec.field(default_factory=list)

    @property
    def clean(self) -> bool:
        """Whether nothing was found that is wrong, a crash or a refusal."""
        return not any(h.severity in HAZARDOUS for h in self.hazards)
