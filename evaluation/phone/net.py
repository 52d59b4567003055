"""The form of a net of the phone's evaluation, and how one is written."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from onnx import numpy_helper, parser

Array = npt.NDArray[Any]
Draw = Callable[[np.random.Generator, tuple[int, ...]], Array]
Feeds = Mapping[str, tuple[tuple[int | str, ...], Draw]]
Row = tuple[str, str, Feeds, Mapping[str, Any]]  # name, lines, inputs and weights of a net
OPSET = 17
SAMPLES = 3
TYPES = {"float32": "float", "int64": "int64", "int32": "int32"}


@dataclass(frozen=True, kw_only=True)
class PhoneNet:
    """A net, how to write it, and its inputs.

    ``planted``: at precision low, on a CPU with half-precision arithmetic, it is off by more than 30 dB
    allow, for the reason that ``kind`` names; else ``kind`` says what sort of net it is. ``build`` writes it
    into a directory and returns the file.
    """

    name: str
    kind: str
    planted: bool
    build: Callable[[Path], Path]
    samples: tuple[dict[str, Array], ...]


def written(
    name: str,
    kind: str,
    lines: str,
    feeds: Feeds,
    weights: Mapping[str, Any] | None = None,
    *,
    planted: bool,
    sizes: Mapping[str, tuple[int, ...]] | None = None,
    opset: int = OPSET,
) -> PhoneNet:
    """Return the net of *lines*, statements in ONNX's notation that end in ``y``.

    *feeds* are the inputs, each with its shape and how its values are drawn; *sizes* the size of each named
    dimension, sample by sample.
    """
    held = {
        key: value(rng(key + name)) if callable(value) else value for key, value in (weights or {}).items()
    }
    samples = [
        {
            key: draw(rng(f"{name} {key} {number}"), _sizes(shape, sizes or {}, number))
            for key, (shape, draw) in feeds.items()
        }
        for number in range(SAMPLES)
    ]

    def build(directory: Path) -> Path:
        inputs = ", ".join(
            f"{TYPES[str(samples[0][key].dtype)]}[{', '.join(map(str, shape))}] {key}"
            for key, (shape, _) in feeds.items()
        )
        model = parser.parse_model(
            f'<ir_version: 8, opset_import: ["": {opset}]> net ({inputs}) => (float y) {{ {lines} }}'
        )
        model.graph.output[0].type.tensor_type.ClearField("shape")
        model.graph.initializer.extend(
            numpy_helper.from_array(np.asarray(value), key) for key, value in held.items()
        )
        path = directory / "model.onnx"
        onnx.save(onnx.shape_inference.infer_shapes(model, data_prop=True), path)
        return path

    return PhoneNet(name=name, kind=kind, planted=planted, build=build, samples=tuple(samples))


def of_families(families: Mapping[str, Callable[[], Iterable[Row]]], *, planted: bool) -> list[PhoneNet]:
    """The nets of *families*, by their kinds."""
    return [
        written(name, kind, lines, feeds, weights, planted=planted)
        for kind, family in families.items()
        for name, lines, feeds, weights in family()
    ]


def rng(text: str) -> np.random.Generator:
    """A generator of its own for each *text*."""
    return np.random.default_rng(zlib.crc32(text.encode()))


def normal(scale: float = 1.0, middle: float = 0.0) -> Draw:
    """Values around *middle*."""
    return lambda random, shape: (middle + scale * random.standard_normal(shape)).astype(np.float32)


def uniform(low: float = 0.0, high: float = 1.0) -> Draw:
    """Values between *low* and *high*."""
    return lambda random, shape: random.uniform(low, high, shape).astype(np.float32)


def whole(low: int, high: int) -> Draw:
    """Integers from *low* to *high*, that excluded."""
    return lambda random, shape: random.integers(low, high, shape).astype(np.int64)


def weight(*shape: int, scale: float | None = None) -> Callable[[np.random.Generator], Array]:
    """A weight of this shape, scaled so that a layer keeps the size of its values unless *scale* is given."""
    size = scale if scale is not None else float(np.prod(shape[1:]) or 1) ** -0.5
    return lambda random: (size * random.standard_normal(shape)).astype(np.float32)


def _sizes(
    shape: tuple[int | str, ...], sizes: Mapping[str, tuple[int, ...]], number: int
) -> tuple[int, ...]:
    return tuple(size if isinstance(size, int) else sizes[size][number] for size in shape)
