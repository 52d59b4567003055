"""Reading a toy net and running it.

    {"toy": 1, "layers": [{"weight": [[...], ...], "bias": [...], "relu": true}, ...]}

A layer computes x @ weight + bias; weight is [inputs, outputs].
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from mnnprep.errors import RefusedError
from mnnprep.model.files import Arrays
from mnnprep.model.net import Refused
from mnnprep.model.signature import Dim, Range, TensorSpec

Matrix = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Layer:
    weight: Matrix
    bias: Matrix
    relu: bool


def read(path: Path) -> list[Layer]:
    """The layers of the net at *path*. Raises RefusedError for a damaged one."""
    try:
        found = [
            Layer(np.array(la["weight"], "f4"), np.array(la["bias"], "f4"), bool(la["relu"]))
            for la in json.loads(path.read_text())["layers"]
        ]
        for layer in found:
            _ = np.zeros((1, layer.weight.shape[0]), "f4") @ layer.weight + layer.bias
    except (ValueError, KeyError, TypeError) as error:
        raise RefusedError("the toy net is damaged", seen=str(error), next="write it again") from error
    return found


class ToyNet:
    """A :class:`mnnprep.model.net.Net`."""

    def __init__(self, path: str) -> None:
        self.layers = read(Path(path))
        self.example: Arrays = {}
        self.dims: tuple[Dim, ...] = ()
        self.inputs = (TensorSpec("x", "float32", ("n", self.layers[0].weight.shape[0])),)

    def run(self, inputs: Arrays) -> Arrays:
        return {"y": self._through(inputs["x"], np.float32)}

    def run_precise(self, inputs: Arrays) -> Arrays:
        return {"y": self._through(inputs["x"], np.float64)}

    def _through(self, x: npt.NDArray[np.generic], dtype: type) -> npt.NDArray[np.generic]:
        value = x.astype(dtype)
        try:
            for layer in self.layers:
                value = value @ layer.weight.astype(dtype) + layer.bias.astype(dtype)
                value = np.maximum(value, 0) if layer.relu else value
        except ValueError as error:
            raise Refused(str(error)) from error
        return value

    def bounds(self, inputs: Arrays) -> dict[str, Range]:
        return {}

    def insensitive(self) -> dict[str, str]:
        return {}
