"""A step as data: a function by name, the types of its messages, and its worker.

Only the standard library is imported here: naming a step imports neither its module nor a framework.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Generic, TypeVar

if TYPE_CHECKING:
    from msgspec import Struct

J = TypeVar("J", bound="Struct")
R = TypeVar("R")


@dataclass(frozen=True)
class Interpreter:
    """The Python of another machine, under an emulator.

    ``command`` starts it, the emulator first. It finds its packages in ``packages``, and of this Python's own
    none but mnnprep. ``reads`` are the places that it lies in.
    """

    command: tuple[str, ...]
    packages: str
    reads: tuple[str, ...] = ()


@dataclass(frozen=True)
class Worker:
    """A kind of worker process; steps that name the same one share it in a run.

    ``imports`` are the modules imported before the first job, those that are not installed left out;
    ``environment`` are variables set beside every worker's own. ``interpreter`` None: this Python.
    """

    name: str
    imports: tuple[str, ...] = ()
    environment: tuple[tuple[str, str], ...] = ()
    interpreter: Interpreter | None = None

    @property
    def packages(self) -> tuple[str, ...]:
        """The top-level packages that it imports, mnnprep left out."""
        tops = dict.fromkeys(module.partition(".")[0] for module in self.imports)
        return tuple(top for top in tops if top != "mnnprep")


def reader(module: str) -> Worker:
    """The worker that reads files with *module* alone, and so runs no framework."""
    return Worker(module, (module,))


@dataclass(frozen=True)
class Step(Generic[J, R]):
    """A function that runs in a worker: ``function`` of ``module`` takes a ``job`` and gives a ``reply``.

    Both types are msgspec structs (the annotations of the function, which a test compares).
    """

    module: str
    function: str
    job: type[J]
    reply: type[R]
    worker: Worker

    @classmethod
    def of(cls, function: Callable[[J], R], worker: Worker) -> Step[J, R]:
        """The step that runs *function*, whose module is imported here already."""
        job, reply = message_types(function)
        return cls(function.__module__, function.__name__, job, reply, worker)

    @property
    def name(self) -> str:
        """``package.module:function``, as the worker is told."""
        return f"{self.module}:{self.function}"


def message_types(function: Callable[..., Any]) -> tuple[Any, Any]:
    """The types of a step function's one argument and of what it returns."""
    import inspect

    signature = inspect.signature(function, eval_str=True)
    (argument,) = signature.parameters.values()
    return argument.annotation, signature.return_annotation
