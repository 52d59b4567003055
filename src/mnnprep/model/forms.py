"""The values of options: texts, paths, sizes, declarations of inputs and so on.

Each form reads what the command line gives and what Python does, and what it writes, it reads. What it needs
to read is imported when it is read: ``--help`` imports this module.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any, TypeVar

from mnnprep.errors import UsageError
from mnnprep.model.flags import Form, Order

if TYPE_CHECKING:
    from mnnprep.model.metrics import Metric
    from mnnprep.model.preprocess import Recipe
    from mnnprep.model.signature import Dim, TensorSpec
    from mnnprep.model.target import Target

PathLike = str | os.PathLike[str]
Texts = str | Iterable[str]
Asked = Callable[..., Any]
Metrics = str | Asked | Iterable[str | Asked]
Value = TypeVar("Value")


def _same(given: Value) -> Value:
    return given


def _texts(given: Texts) -> tuple[str, ...]:
    """One text or several."""
    return (given,) if isinstance(given, str) else tuple(given)


def _pairs(given: Mapping[str, tuple[float, float]] | Texts) -> tuple[str, ...]:
    """``NAME=LOW:HIGH`` texts, of them or of a mapping of names to ``(low, high)``."""
    if isinstance(given, Mapping):
        return tuple(f"{name}={low}:{high}" for name, (low, high) in given.items())
    return _texts(given)


def _whole(given: int | str) -> int:
    if not isinstance(given, str):
        return given
    try:
        return int(given)
    except ValueError as error:
        raise UsageError(
            "a whole number could not be read", seen=given, next="write its digits, for example 8"
        ) from error


def _size(given: int | str) -> int:
    from mnnprep.model.request import parse_size

    return parse_size(given or "0") if isinstance(given, str) else given


def _names(given: Texts) -> tuple[str, ...]:
    """Names, or one text of them with commas between."""
    if isinstance(given, str):
        return tuple(name.strip() for name in given.split(",") if name.strip())
    return tuple(given)


def _absolute(given: PathLike) -> str:
    from pathlib import Path

    return str(Path(given).absolute()) if os.fspath(given) else ""


def _base(path: str) -> Iterable[str]:
    """The last part of a path: a record holds no directory."""
    from pathlib import Path

    from mnnprep.safety.printable import as_text

    return (as_text(Path(path).name),)


def _inputs(given: Texts) -> tuple[TensorSpec, ...]:
    from mnnprep.model.request import parse_inputs

    return parse_inputs(_texts(given))


def _dims(given: Mapping[str, tuple[int, int]] | Texts) -> tuple[Dim, ...]:
    from mnnprep.model.request import parse_dims

    return parse_dims(_pairs(given))


def _ranges(given: Mapping[str, tuple[float, float]] | Texts) -> dict[str, tuple[float, float]]:
    from mnnprep.model.request import parse_ranges

    return parse_ranges(_pairs(given))


def _recipes(given: Texts) -> tuple[Recipe, ...]:
    from mnnprep.model.request import parse_recipes

    return parse_recipes(_texts(given))


def _recipe_texts(recipes: Iterable[Recipe]) -> Iterable[str]:
    from mnnprep.model.preprocess import preprocess_text

    return map(preprocess_text, recipes)


def _arguments(given: Mapping[str, object] | Texts) -> dict[str, str]:
    from mnnprep.model.request import parse_factory_args

    if isinstance(given, Mapping):
        return {name: str(value) for name, value in given.items()}
    return parse_factory_args(_texts(given))


def _metrics(given: Metrics | Iterable[Metric]) -> tuple[Metric, ...]:
    from mnnprep.model.metrics import make_metrics

    return make_metrics((given,) if isinstance(given, str) or callable(given) else given)


def _metric_texts(metrics: Iterable[Metric]) -> Iterable[str]:
    from mnnprep.model.metrics import metric_text

    return map(metric_text, metrics)


def _targets(given: Texts) -> tuple[Target, ...]:
    from mnnprep.model.target import parse_targets

    return parse_targets(_texts(given))


def _target_texts(targets: Iterable[Target]) -> Iterable[str]:
    return map(str, targets)


def _one(value: object) -> Iterable[str]:
    return (str(value),)


TEXT = Form[str](_same, _one)
TARGETS = Form(_targets, _target_texts, Order.SEVERAL)
NAMES = Form(_names, lambda names: (",".join(names),))
PATH = Form[str](os.fspath, _base)
ABSOLUTE_PATH = Form(_absolute, _base)
WHOLE = Form(_whole, _one)
NUMBER = Form[float](_same, lambda value: (repr(value),), Order.MEASURE)
SIZE = Form(_size, _one, Order.MEASURE)
SEVERAL = Form(_texts, _same, Order.SEVERAL)
INPUTS = Form(_inputs, lambda specs: map(str, specs), Order.SEVERAL)
DIMS = Form(_dims, lambda dims: (f"{d.name}={d.min}:{d.max}" for d in dims), Order.SEVERAL)
RANGES = Form(
    _ranges,
    lambda ranges: (f"{name}={low!r}:{high!r}" for name, (low, high) in ranges.items()),
    Order.SEVERAL,
)
RECIPES = Form(_recipes, _recipe_texts, Order.SEVERAL)
ARGUMENTS = Form(
    _arguments, lambda pairs: (f"{name}={value}" for name, value in pairs.items()), Order.SEVERAL
)
METRICS = Form(_metrics, _metric_texts, Order.SEVERAL)
BARE = Form[bool](_same, lambda _: (), Order.BARE)
