"""What a repair rule is."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

Severity = Literal["wrong", "refused", "crash"]


@dataclass(frozen=True, kw_only=True)
class Rule:
    """A rewrite and the measured behaviour of MNN that it answers.

    ``hazard`` says what MNN does with the pattern, in one sentence, and ``severity`` how that ends:
    numbers that are wrong though every step said success, a refusal, or a crash.  ``exact`` rewrites
    give the same bits in onnxruntime, but for the exceptions that the rule's module names.
    A rule that is ``always`` to fire does so wherever its pattern is, because MNN's answer there is
    undefined or silently wrong; any other is for a model that MNN refused or computed differently.

    ``operators`` are the types without one of which the pattern can't be there.

    ``apply`` takes an ``onnx_ir.Model``, rewrites it in place and returns the nodes it rewrote, each
    as its operator and name.  Where it finds nothing it returns an empty list and has changed nothing;
    it finds nothing in what it has rewritten.
    """

    name: str
    hazard: str
    severity: Severity
    exact: bool
    always: bool
    operators: frozenset[str]
    apply: Callable[[Any], list[str]]
