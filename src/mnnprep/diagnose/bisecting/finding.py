"""The findings of a bisection."""

from __future__ import annotations

from dataclasses import dataclass, field

import msgspec

from mnnprep.comparison.deviation import Deviation
from mnnprep.comparison.tolerance import LARGEST
from mnnprep.diagnose.bisecting.experiment import ConvertedModel, Failure, Trial
from mnnprep.formats.onnx.outline import Outline
from mnnprep.model.messages import CaseFile


class Growth(msgspec.Struct, frozen=True):
    """How much the error grew at a value: the excess of what its nodes take, and its own."""

    node: str
    before: float
    after: float


@dataclass(frozen=True)
class Subject:
    """A model that MNN computes otherwise at ``case``, converted.

    ``where`` says which body of control flow it is, empty for the whole.

    ``failing`` is how its run fails, None if it gives wrong numbers: those of the outputs ``wrong``.
    """

    model: str
    outline: Outline
    piece: ConvertedModel
    case: CaseFile
    where: str = ""
    failing: Failure | None = None
    own: bool = False  # the bundle's own file, which was not converted just now
    wrong: dict[str, Deviation] = field(default_factory=dict)


@dataclass
class FaultLocation:
    """The place at which MNN leaves the reference.

    ``kind``: ``node`` (one node, wrong when run alone on right inputs), ``fused`` (nodes that MNN made one
    of: right one by one, wrong together), ``context`` (wrong only among its neighbours), ``gradual`` (no node
    makes it: rounding adds up), ``stale`` (a conversion made now is right), ``unresolved``. ``trial`` is the
    smallest piece that shows it, if there is one; ``excess`` are that of the value in the whole model, of
    what its nodes take there, and of the value when its nodes run alone on the reference's values.
    """

    kind: str
    subject: Subject
    nodes: tuple[int, ...] = ()
    value: str = ""
    reason: str = ""
    problem: str = ""  # what is wrong with the value
    excess: float | None = None
    upstream: float | None = None
    alone: float | None = None
    failure: Failure | None = None
    trial: Trial | None = None
    growth: list[Growth] = field(default_factory=list)
    inner: FaultLocation | None = None  # in a body of control flow

    def innermost(self) -> FaultLocation:
        """What was found in the innermost body of control flow that was looked into."""
        return self if self.inner is None else self.inner.innermost()

    def labels(self) -> list[str]:
        """The nodes' operators and names."""
        return [self.subject.outline.nodes[i].label for i in self.nodes]


def finite(excess: float | None) -> float | None:
    """*excess* in four digits; None if it is not a number, or beyond one."""
    return None if excess is None or not 0 <= excess < LARGEST else float(f"{excess:.4g}")


def sentence(found: FaultLocation) -> str:
    """The finding in a sentence or two."""
    names = ", ".join(found.labels())
    inside = f", in the {found.subject.where}" if found.subject.where else ""
    if found.kind in ("gradual", "stale", "unresolved") or not names:
        return f"{found.reason}{f' (first seen at {names}{inside})' if names else ''}"
    if found.failure is not None:
        return f"{names}{inside}: {found.failure.reason.splitlines()[0]}"
    used = "" if finite(found.excess) is None else f"{found.excess:.3g} times the tolerance"
    off = ", ".join(filter(None, (found.problem, used)))
    alone = {
        "node": "run alone, on the reference's values, it is wrong as well, so the error is made there",
        "fused": found.reason,
        "context": found.reason,
    }
    return f"{names}{inside}: the error begins at its value ({off}); {alone[found.kind]}"
