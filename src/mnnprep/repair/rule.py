"""The form of a rule: a behaviour of MNN, the places that meet it in a model, and the remedy."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Generic, Literal, TypeVar

from mnnprep.repair.support.editor import Editor
from mnnprep.repair.support.reading import ModelView

if TYPE_CHECKING:
    import onnx_ir as ir

Severity = Literal["wrong", "crash", "refused", "narrowed", "low"]
Target = Literal["", "low"]


M = TypeVar("M")
M_co = TypeVar("M_co", covariant=True)


@dataclass(frozen=True, kw_only=True)
class Match(Generic[M_co]):
    """A place in a model that has what a rule answers.

    ``at`` is the node, or the name of a value (an initializer, an input, an output) or of the graph.
    ``opset`` is the one that the node is read by, and ``found`` what else was found, if the rewrite needs
    them.  ``detail`` says what it is there, if the hazard has several forms; ``repairable`` is False if
    the rewrite can't answer this form.
    """

    at: ir.Node | str
    opset: int = 0
    found: M_co | None = None
    detail: str = ""
    repairable: bool = True

    @property
    def node(self) -> ir.Node:
        """The node.

        Raises:
            TypeError: it is a value or the graph.
        """
        if isinstance(self.at, str):
            raise TypeError(f"{self.at} is not a node")
        return self.at

    @property
    def plan(self) -> M_co:
        """Return what was found, of a match that is repairable.

        Raises:
            ValueError: nothing was.
        """
        if self.found is None:
            raise ValueError(f"nothing was found of {self.at}")
        return self.found


@dataclass(frozen=True, kw_only=True)
class Rewrite(Generic[M]):
    """How to compute the same without the hazard.

    ``exact`` rewrites give the same bits in onnxruntime, but for the exceptions that the rule's module names.
    One that is ``always`` applied is so wherever its pattern is, because MNN's answer there is
    undefined or silently wrong; any other is for a model that MNN refused or computed differently.

    ``apply`` rewrites one match, and returns whether it did.  Before it returns False it has changed nothing.
    The names of the model's inputs, outputs and initializers stay.  The rule finds nothing in what it has
    rewritten.
    """

    apply: Callable[[Editor, Match[M]], bool]
    exact: bool
    always: bool = False


@dataclass(frozen=True, kw_only=True)
class Rule(Generic[M]):
    """A hazard, and its repair if there is one.

    ``hazard`` says what MNN does with the pattern, in one sentence, and ``severity`` how that ends: numbers
    that are ``wrong`` though every step said success, a ``crash``, a model that is ``refused``, values
    that are ``narrowed`` (right for ordinary ones), or numbers that are wrong at precision ``low`` alone,
    whatever the values.  ``remedy`` says what the user can do.

    ``operators`` are the types without one of which the pattern can't be there; empty: it needs none.

    ``find`` lists the matches and changes nothing.

    A ``preparation`` is not a hazard: it shows other rules what they look for; ``check`` does not list it.

    ``target`` is where the hazard is: empty for anywhere, or ``low`` for precision ``low`` on a CPU with
    half-precision arithmetic. A rule for ``low`` applies only where a target at that precision was asked for
    and its run was wrong there: its rewrite costs time and, but for the exact ones, bits.
    """

    name: str
    hazard: str
    severity: Severity
    remedy: str
    operators: frozenset[str]
    find: Callable[[ModelView], Iterable[Match[M]]]
    rewrite: Rewrite[M] | None = None
    preparation: bool = False
    target: Target = ""
