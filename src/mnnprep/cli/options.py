"""Click's options.

Those of the table in `model/options.py`, and others that several commands have in the same words.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, TypeVar

import click

from mnnprep.errors import UsageError
from mnnprep.model.flags import Flag, Flags
from mnnprep.model.forms import NUMBER, TEXT, WHOLE
from mnnprep.model.options import PREPARE

F = TypeVar("F", bound=Callable[..., object])


def options(flags: Flags) -> Callable[[F], F]:
    """Decorate a command with the options of *flags*, in their order; :func:`chosen` reads them."""

    def decorate(command: F) -> F:
        for flag in reversed(list(flags.values())):
            command = option(flag)(command)
            if flag.without is not None:
                word, text = flag.without
                command = click.option(word, _without(flag), is_flag=True, help=text)(command)
        return command

    return decorate


def option(flag: Flag) -> Callable[[F], F]:
    """The one option of *flag*."""
    if flag.form.bare:
        return click.option(flag.word, flag.name, is_flag=True, help=flag.help)
    if flag.form.several:
        return click.option(flag.word, flag.name, multiple=True, metavar=flag.metavar, help=flag.help)
    shown = flag.form in (TEXT, WHOLE, NUMBER) and flag.default not in (None, "") and not flag.choices
    return click.option(
        flag.word,
        flag.name,
        default=flag.default if shown else None,
        show_default=shown,
        type=_type(flag),
        envvar=flag.env,
        metavar=flag.metavar,
        help=flag.help,
    )


def _type(flag: Flag) -> click.ParamType[Any] | None:
    if flag.choices:
        return click.Choice(flag.choices)
    if flag.form is WHOLE:
        return click.IntRange(flag.least, flag.most)
    if flag.form is NUMBER:
        return click.FLOAT if flag.least is None else click.FloatRange(flag.least, flag.most)
    return None


def _without(flag: Flag) -> str:
    """Click's name of the flag that says "none of them"."""
    return f"no_{flag.name}"


def chosen(flags: Flags, params: Mapping[str, object]) -> dict[str, object]:
    """The options among a command's *params*, as Python's functions take them.

    What was not given is left out, and a flag such as ``--no-repair`` is an empty list.

    Raises:
        UsageError: such a flag stands beside the option that it excludes.
    """
    found: dict[str, object] = {}
    for name, flag in flags.items():
        given = params[name]
        if flag.without is not None and params[_without(flag)]:
            if given:
                raise UsageError(
                    f"{flag.without[0]} and {flag.word} contradict each other",
                    seen=", ".join(flag.form.read(given)),
                    next="leave one of them out",
                )
            found[name] = ()
        elif given not in (None, ()):
            found[name] = given
    return found


factory_arg = option(PREPARE["factory_args"])
step_timeout = option(PREPARE["timeout"])
json_manifest = click.option("--json", "as_json", is_flag=True, help="Print the manifest as JSON on stdout.")
reading_timeout = click.option(
    "--timeout",
    default=60.0,
    show_default=True,
    type=click.FloatRange(1),
    help="Time limit in seconds for reading the file.",
)
reading_memory = click.option(
    "--memory",
    default="",
    metavar="SIZE",
    help="Memory limit for reading the file, such as 8GB (default: three quarters of what is free).",
)
