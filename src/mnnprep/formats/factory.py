"""A factory, ``file.py:callable`` or ``package.module:callable``: finding it, giving it its arguments."""

from __future__ import annotations

import ast
import importlib
import importlib.util
import inspect
import os
import sys
from collections.abc import Callable
from pathlib import Path

from mnnprep.errors import UsageError
from mnnprep.formats.registry import BACKENDS, SOURCE_KINDS, steps_of
from mnnprep.safety.error_text import cause
from mnnprep.workers.step import Worker

FACTORIES = tuple(backend for backend in BACKENDS if backend.factory)


def looks_like_factory(text: str) -> bool:
    """Whether *text* is ``file.py:callable`` or ``package.module:callable`` and no existing path."""
    place, colon, name = text.rpartition(":")
    return (
        bool(colon)
        and bool(place)
        and not os.path.exists(text)
        and all(part.isidentifier() for part in name.split("."))
    )


def factory_kind(place: str, search: list[str]) -> str:
    """The kind of a factory: of the first framework that its file imports, which is read and not run.

    The first framework with factories (PyTorch) where the file imports none of them, or can't be read.
    """
    if place.endswith(".py"):
        path = Path(place)
    else:
        stem = place.replace(".", "/")
        found = [
            p
            for root in search
            for p in (Path(root, f"{stem}.py"), Path(root, stem, "__init__.py"))
            if p.is_file()
        ]
        path = found[0] if found else Path()
    try:
        tree = ast.parse(path.read_bytes())
    except (OSError, SyntaxError, ValueError):
        return FACTORIES[0].factory
    names = {alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names}
    names |= {
        node.module or "" for node in ast.walk(tree) if isinstance(node, ast.ImportFrom) and not node.level
    }
    tops = {name.partition(".")[0] for name in names}
    return next((b.factory for b in FACTORIES if tops & b.factory_imports), FACTORIES[0].factory)


Factory = Callable[..., object]


def find_factory(target: str) -> Factory:
    """The callable that ``file.py:name`` or ``package.module:name`` stands for.

    Raises:
        UsageError: the text is of another form, or a value is out of bounds.
    """
    place, _, name = target.rpartition(":")
    try:
        if place.endswith(".py"):
            path = Path(place)
            sys.path.insert(0, str(path.parent))
            spec = importlib.util.spec_from_file_location(path.stem, path)
            assert spec is not None and spec.loader is not None
            module = importlib.util.module_from_spec(spec)
            sys.modules[path.stem] = module
            spec.loader.exec_module(module)
        else:
            module = importlib.import_module(place)
    except (Exception, SystemExit) as error:  # a script without `if __name__ == "__main__"` may well leave
        raise UsageError(
            "the factory's module could not be imported",
            seen=cause(error),
            next=f"check that `python -c 'import {Path(place).stem}'` works here",
        ) from error
    function: object = module
    for part in name.split("."):
        function = getattr(function, part, None)
    if not callable(function):
        public = [
            n
            for n, v in vars(module).items()
            if callable(v) and not n.startswith("_") and getattr(v, "__module__", "") == module.__name__
        ]
        raise UsageError(
            f"there is no callable {name} in the factory's module",
            seen=Path(place).name,
            next="it has " + (", ".join(public) or "none"),
        )
    return function


def arguments_for(function: Factory, given: dict[str, str]) -> dict[str, object]:
    """``--factory-arg`` values as Python values: literals if they are, else text."""
    parameters = inspect.signature(function).parameters
    open_ended = any(p.kind is inspect.Parameter.VAR_KEYWORD for p in parameters.values())
    for name in given:
        if name not in parameters and not open_ended:
            raise UsageError(
                f"the factory takes no argument {name}",
                seen=name,
                next="it takes " + (", ".join(parameters) or "none"),
            )
    required = [
        p.name
        for p in parameters.values()
        if p.default is p.empty
        and p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)
        and p.name not in given
    ]
    if required:
        raise UsageError(
            "the factory needs arguments",
            seen=", ".join(required),
            next="give each with --factory-arg name=value",
        )

    def value(name: str, text: str) -> object:
        if name in parameters and parameters[name].annotation in (str, "str"):
            return text
        try:
            return ast.literal_eval(text)
        except (ValueError, SyntaxError):
            return text

    return {name: value(name, text) for name, text in given.items()}


def place_of(error: BaseException) -> str:
    """Return the place in the user's code that an exception came from: file name and line."""
    trace = error.__traceback__
    place = "?"
    while trace is not None:
        filename = trace.tb_frame.f_code.co_filename
        if "mnnprep" not in Path(filename).parts:
            place = f"{Path(filename).name}:{trace.tb_lineno}"
        trace = trace.tb_next
    return place


def likely_worker(source: str) -> Worker | None:
    """The worker that will run *source*, to judge by its name alone (a factory: by its file's imports).

    None if that says nothing.
    """
    if looks_like_factory(source):
        place = source.rpartition(":")[0]
        there = os.path.isfile(place) or not place.endswith(".py")
        return steps_of(factory_kind(place, [os.getcwd()])).worker if there else None
    if not os.path.isfile(source):
        return None
    kinds = (kind for kind in SOURCE_KINDS.values() if kind.suffixes and source.endswith(kind.suffixes))
    return next((kind.steps.worker for kind in kinds if kind.steps), None)
