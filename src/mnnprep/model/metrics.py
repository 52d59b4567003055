"""The metrics that ``--metric`` asks for.

Each is a task metric by name or a function of the user's, with the value that it must reach.

The text form is ``NAME``, or ``NAME=VALUE`` where the metric must be at least VALUE (for ``mse``: at most); a
function is ``file.py:function``, and for one that is better when it is smaller, ``file.py:function<=VALUE``.
``NAME@OUTPUT`` measures one output alone.
"""

from __future__ import annotations

import hashlib
import inspect
import math
import re
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import msgspec

from mnnprep.errors import UsageError
from mnnprep.evidence import catalog
from mnnprep.evidence.row import Row
from mnnprep.model.files import sha256

NAMES = ("top1", "top5", "cosine", "sqnr", "mse", "iou")
SMALLER_IS_BETTER = ("mse",)
_TEXT = re.compile(r"(?P<name>.+?)\s*(?:(?P<sign><=|>=|=)\s*(?P<value>[^<>=]*))?$")


class Metric(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One metric.

    ``name`` is one of NAMES (``NAME@OUTPUT``: of that output alone) or a function's ``file.py:function``;
    ``threshold`` is the value to reach (None: only to be shown), ``at_most`` whether smaller is better.
    ``sha256`` is that of the function's code.

    ``function`` is where the function is found (a path with its name, or ``live:KEY``); it is of this run
    only and never recorded.
    """

    name: str
    threshold: float | None = None
    at_most: bool = False
    sha256: str = ""
    function: str = ""

    @property
    def row(self) -> Row:
        """The row of its check."""
        return catalog.METRIC.of(self.name)

    @property
    def own(self) -> bool:
        """Whether it is the user's function."""
        return self.kind not in NAMES

    @property
    def kind(self) -> str:
        """The name without its output."""
        return self.name.partition("@")[0]

    @property
    def output(self) -> str:
        """The output that is measured alone, or empty."""
        return self.name.partition("@")[2]

    @property
    def runs_own_code(self) -> bool:
        """Whether measuring it runs code of the user's."""
        return bool(self.function)

    def reached(self, value: float) -> bool:
        """Whether *value* is good enough; NaN never is."""
        return self.threshold is None or (
            value <= self.threshold if self.at_most else value >= self.threshold
        )

    def wanted(self) -> str:
        """The threshold for reading, or empty."""
        return (
            ""
            if self.threshold is None
            else f"{'at most' if self.at_most else 'at least'} {self.threshold:g}"
        )


def recorded(metrics: Iterable[Metric]) -> list[Metric]:
    """The metrics as the manifest has them: without a path of this run."""
    return [msgspec.structs.replace(metric, function="") for metric in metrics]


def parse_metric(text: str) -> Metric:
    """One ``--metric`` text.

    Raises:
        UsageError: the text is of another form, or a value is out of bounds.
    """
    match = _TEXT.match(text.strip())
    name = match["name"] if match else ""
    if match is None or not name:
        raise UsageError(
            "a --metric could not be read",
            seen=text,
            next="write NAME or NAME=VALUE, for example --metric top1=0.99",
        )
    kind, at, output = name.partition("@")
    own = kind not in NAMES
    if not own and at and not output:
        raise UsageError(
            "a --metric does not name an output after @",
            seen=text,
            next=f"write {kind}@OUTPUT, or {kind} for all outputs",
        )
    path, colon, function = name.rpartition(":")
    if own and not (colon and path.endswith(".py") and function.isidentifier()):
        raise UsageError(
            "a --metric is unknown",
            seen=text,
            next=f"it is one of {', '.join(NAMES)}, such with @OUTPUT, or file.py:function",
        )
    threshold, at_most = _threshold(kind, match["sign"], match["value"], text)
    if not own:
        return Metric(name=name, threshold=threshold, at_most=at_most)
    file = Path(path).absolute()
    if not file.is_file():
        raise UsageError(
            "there is no file at a --metric's path",
            seen=path,
            next="give file.py:function, relative to the current directory",
        )
    return Metric(
        name=f"{file.name}:{function}",
        threshold=threshold,
        at_most=at_most,
        sha256=sha256(file),
        function=f"{file}:{function}",
    )


def _threshold(name: str, sign: str | None, value: str | None, text: str) -> tuple[float | None, bool]:
    """The value to reach and whether it is an upper bound."""
    smaller = name in SMALLER_IS_BETTER or sign == "<="
    if sign is None:
        return None, smaller
    try:
        threshold = float(value or "")
    except ValueError as error:
        raise UsageError(
            "a --metric has a value that is not a number",
            seen=text,
            next="write for example --metric top1=0.99",
        ) from error
    if not math.isfinite(threshold):
        raise UsageError(
            "a --metric has a value that is not finite",
            seen=text,
            next="write for example --metric top1=0.99",
        )
    if name in NAMES and (sign == ">=" if name in SMALLER_IS_BETTER else sign == "<="):
        better = "smaller" if name in SMALLER_IS_BETTER else "larger"
        raise UsageError(
            f"a --metric bounds {name} on the wrong side: it is better when it is {better}",
            seen=text,
            next=f"write {name}={value}",
        )
    return threshold, smaller


def metric_text(metric: Metric) -> str:
    """The ``--metric`` text that asks for *metric*, a function's file without its directory."""
    if metric.threshold is None:
        return metric.name
    return f"{metric.name}{'<=' if metric.own and metric.at_most else '='}{metric.threshold!r}"


def make_metrics(
    metrics: Iterable[object], live: dict[str, Callable[..., Any]] | None = None
) -> tuple[Metric, ...]:
    """Make metrics of texts, of functions of this process, and of metrics made already.

    The functions are put into *live* by the key that stands in ``Metric.function``.

    A function's sha256 is that of its source text, empty if Python does not know it.

    Raises:
        UsageError: the text is of another form, or a value is out of bounds.
    """
    made: list[Metric] = []
    for given in metrics:
        if isinstance(given, Metric):
            made.append(given)
        elif isinstance(given, str):
            made.append(parse_metric(given))
        elif live is not None and callable(given):
            name = f"{given.__module__}:{getattr(given, '__name__', type(given).__name__)}"
            key = f"live:{id(given):x}"
            live[key] = given
            made.append(Metric(name=name, sha256=_source_sha256(given), function=key))
        else:
            raise UsageError(
                "a metric is neither a text nor a function",
                seen=type(given).__name__,
                next=f"give one of {', '.join(NAMES)}, or a function",
            )
    names = [metric.name for metric in made]
    twice = [name for name in dict.fromkeys(names) if names.count(name) > 1]
    if twice:
        raise UsageError(f"--metric is given twice for {twice[0]}", seen=twice[0], next="give it once")
    return tuple(made)


def _source_sha256(function: Callable[..., Any]) -> str:
    try:
        return hashlib.sha256(inspect.getsource(function).encode()).hexdigest()
    except (OSError, TypeError):
        return ""
