"""One option, said once: what the command line and Python call it, what it fills, how it is read and written.

Only the standard library is imported here: ``--help`` reads these, and must not wait for numpy.
"""

from __future__ import annotations

import difflib
import functools
import inspect
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from enum import IntEnum
from typing import Annotated, Any, Generic, ParamSpec, TypeVar, get_args, get_origin, get_type_hints

Value = TypeVar("Value")
P = ParamSpec("P")
R = TypeVar("R")


class Order(IntEnum):
    """The place of an option in a recorded command: within one of these, as in the table."""

    NAME = 0
    MEASURE = 1
    SEVERAL = 2
    BARE = 3


@dataclass(frozen=True)
class Form(Generic[Value]):
    """The kind of value that an option takes.

    ``read`` makes a value of the request of what was given, on the command line or in Python; ``texts``
    writes it as the command line takes it, a text for each time that the flag is given. ``order`` says
    whether it is given several times, or bare.
    """

    read: Callable[..., Value]
    texts: Callable[[Value], Iterable[str]]
    order: Order = Order.NAME

    @property
    def several(self) -> bool:
        """Whether the flag may be given several times."""
        return self.order is Order.SEVERAL

    @property
    def bare(self) -> bool:
        """Whether the flag stands alone, without a value."""
        return self.order is Order.BARE


@dataclass(frozen=True)
class Flag:
    """An option: what stands beside its type in a TypedDict of options.

    Attributes:
        word: the flag, such as ``--seed``.
        form: what it takes.
        help: what ``--help`` says, and ``help()`` in Python; flags in it become Python's names there.
        note: what Python's ``help()`` says beyond that.
        fills: the field of the request, dotted (``wants.seed``); empty: that of the option's name.
        default: what holds where it is not given, as the request has it.
        metavar: what ``--help`` calls its value.
        choices: the only texts that the command line takes.
        least: the least value that the command line takes.
        most: the largest one.
        env: the environment variable that the command line takes it from.
        without: a bare flag that says "none of them", and its help, for an option that is given several
            times.
        recorded: whether a bundle's command has it.
        name: Python's keyword and the request's option; the TypedDict says it.
        type: what Python takes; the TypedDict says it.
    """

    word: str
    form: Form[Any]
    help: str
    note: str = ""
    fills: str = ""
    default: object = None
    metavar: str | None = None
    choices: tuple[str, ...] = ()
    least: int | None = None
    most: int | None = None
    env: str | None = None
    without: tuple[str, str] | None = None
    recorded: bool = True
    name: str = ""
    type: object = None

    @property
    def place(self) -> tuple[str, str]:
        """The part of the request that it fills (empty: the request itself), and the field in it."""
        group, _, field = (self.fills or self.name).rpartition(".")
        return group, field

    def value_in(self, request: object) -> object:
        """Its value in *request*."""
        return functools.reduce(getattr, (self.fills or self.name).split("."), request)

    def words(self, value: object) -> list[str]:
        """The arguments that say *value*; none if it is the default."""
        if value == self.default:
            return []
        if self.without is not None and not value:
            return [self.without[0]]
        if self.form.bare:
            return [self.word]
        return [word for text in self.form.texts(value) if text for word in (self.word, text)]


Flags = Mapping[str, Flag]


def flags_of(options: type, shared: Flags | None = None) -> Flags:
    """The flags of a TypedDict of options, by name, in its order.

    An entry without a flag is the one of *shared* that has its name; a text beside its type is then its help
    here.
    """
    found: dict[str, Flag] = {}
    for name, hint in get_type_hints(options, include_extras=True).items():
        kind, *notes = get_args(hint) if get_origin(hint) is Annotated else (hint,)
        flag = next((note for note in notes if isinstance(note, Flag)), None) or (shared or {})[name]
        text = next((note for note in notes if isinstance(note, str)), flag.help)
        found[name] = replace(flag, name=name, type=kind, help=text)
    return found


def words_of(request: object, flags: Flags) -> list[str]:
    """The arguments that ask for what *request* asks for, but for those that are not recorded."""
    written: list[tuple[Order, list[str]]] = []
    for flag in flags.values():
        if flag.recorded:
            words = flag.words(flag.value_in(request))
            bare = flag.without is not None and words == [flag.without[0]]
            written.append((Order.BARE if bare else flag.form.order, words))
    return [word for _, words in sorted(written, key=lambda one: one[0]) for word in words]


def takes(flags: Flags) -> Callable[[Callable[P, R]], Callable[P, R]]:
    """Decorate a function that takes *flags* as keywords: its signature and its docstring show them.

    A keyword that it does not take is a TypeError that names the one most like it.
    """

    def decorate(function: Callable[P, R]) -> Callable[P, R]:
        own = inspect.signature(function)
        named = [p for p in own.parameters.values() if p.kind is not inspect.Parameter.VAR_KEYWORD]
        options = [
            inspect.Parameter(
                flag.name, inspect.Parameter.KEYWORD_ONLY, default=flag.default, annotation=flag.type
            )
            for flag in flags.values()
        ]
        whole = own.replace(parameters=[*named, *options])

        @functools.wraps(function)
        def called(*args: P.args, **kwargs: P.kwargs) -> R:
            for name in kwargs:
                if name not in whole.parameters:
                    close = difflib.get_close_matches(name, whole.parameters, 1)
                    meant = f"; did you mean {close[0]!r}?" if close else ""
                    raise TypeError(f"{function.__name__}() has no option {name!r}{meant}")
            return function(*args, **kwargs)

        called.__dict__["__signature__"] = whole
        called.__doc__ = f"{inspect.cleandoc(function.__doc__ or '')}\n\nOptions:\n{_described(flags)}\n"
        return called

    return decorate


def _described(flags: Flags) -> str:
    """Describe each of *flags*, in Python's names; no environment variable holds there."""
    import textwrap

    names = {flag.word: flag.name for flag in flags.values()}
    entries = []
    for flag in flags.values():
        text = re.sub("--[a-z0-9-]+", lambda word: names.get(word[0], word[0]), flag.help)
        text = f"{flag.name}: {text.replace(f' (env: {flag.env})', '')} {flag.note}"
        entries.append(
            textwrap.fill(
                text, 100, initial_indent=" " * 4, subsequent_indent=" " * 8, break_on_hyphens=False
            )
        )
    return "\n".join(entries)
