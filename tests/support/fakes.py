"""A net written as a function, for what surveys one."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from mnnprep.model.net import Refused
from mnnprep.model.signature import Dim, parse_input

Arrays = dict[str, Any]


class Fake:
    """A net that computes with *function*; it remembers the shapes that it was asked for."""

    def __init__(
        self,
        inputs: str,
        function: Callable[..., Any],
        *,
        bounds: Any = None,
        exempt: Any = None,
        example: Any = None,
    ) -> None:
        self.inputs = tuple(parse_input(text) for text in inputs.split(";"))
        self.example: Arrays = example or {}
        self.dims: tuple[Dim, ...] = ()
        self.function = function
        self.asked: list[Arrays] = []
        self._bounds, self._exempt = bounds or {}, exempt or {}

    def run(self, inputs: Arrays) -> Arrays:
        self.asked.append(inputs)
        result = self.function(**inputs)
        return result if isinstance(result, dict) else {"y": np.asarray(result)}

    def run_precise(self, inputs: Arrays) -> Arrays | None:
        return None

    def bounds(self, inputs: Arrays) -> dict[str, tuple[float, float]]:
        return self._bounds

    def insensitive(self) -> dict[str, str]:
        return self._exempt


def refuse_unless(condition: bool, why: str = "not such a size") -> None:
    if not condition:
        raise Refused(why)
