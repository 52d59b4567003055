"""What a rule is: a behaviour of MNN, where a model meets it, and what to do."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, Literal

from mnnprep.rules.editor import Editor
from mnnprep.rules.reading import Reading

Severity = Literal["wrong", "crash", "refused", "narrowed"]


@dataclass(frozen=True, kw_only=True)
class Place:
    """Where a model has what a rule answers.

    ``node`` is the ``onnx_ir.Node``, or None where it is a value (``name``: an initializer, an input, an
    output) or the whole model.  ``detail`` says what it is there, where the hazard has several forms.
    ``match`` is what the rewrite needs of what was found; ``repairable`` is False where the rewrite can't
    answer this form.
    """

    node: Any = None
    name: str = ""
    detail: str = ""
    match: Any = None
    repairable: bool = True


@dataclass(frozen=True, kw_only=True)
class Rewrite:
    """How to compute the same without the hazard.

    ``exact`` rewrites give the same bits in onnxruntime, but for the exceptions that the rule's module names.
    One that is ``always`` applied is so wherever its pattern is, because MNN's answer there is
    undefined or silently wrong; any other is for a model that MNN refused or computed differently.

    ``apply`` rewrites one place, and returns whether it did.  Before it returns False it has changed nothing.
    The names of the model's inputs, outputs and initializers stay.  The rule finds nothing in what it has
    rewritten.
    """

    apply: Callable[[Editor, Place], bool]
    exact: bool
    always: bool = False


@dataclass(frozen=True, kw_only=True)
class Rule:
    """A hazard, and its repair if there is one.

    ``hazard`` says what MNN does with the pattern, in one sentence, and ``severity`` how that ends: numbers
    that are ``wrong`` though every step said success, a ``crash``, a model that is ``refused``, or values
    that are ``narrowed`` (right for ordinary ones).  ``remedy`` says what the user can do.

    ``operators`` are the types without one of which the pattern can't be there; empty: it needs none.

    ``find`` lists the places and changes nothing.

    A ``preparation`` is no hazard: it shows other rules what they look for, and ``check`` does not list it.
    """

    name: str
    hazard: str
    severity: Severity
    remedy: str
    operators: frozenset[str]
    find: Callable[[Reading], Iterable[Place]]
    rewrite: Rewrite | None = None
    preparation: bool = False
