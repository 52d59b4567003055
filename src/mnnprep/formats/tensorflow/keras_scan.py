"""A Keras file's own account of itself: its configuration and its weights' shapes, read without Keras."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from mnnprep import deps
from mnnprep.deps import require
from mnnprep.formats.tensor_info import TensorInfo
from mnnprep.formats.tensorflow.keras_config import read_keras, weights_in
from mnnprep.formats.tensorflow.keras_judge import dictionaries, foreign_objects
from mnnprep.weights.hdf5_guard import hdf5_file

if TYPE_CHECKING:
    import h5py

NO_LAYERS = ("Functional", "Sequential", "Model", "DTypePolicy", "Policy")
STATE = ("optimizer", "seed_generator")  # groups of variables that are no weights of the model


class KerasSummary(msgspec.Struct, frozen=True, kw_only=True):
    """A Keras file in figures; ``layers`` counts them by class.

    ``foreign`` names what loading the model would call besides Keras' own computing objects; ``outputs`` are
    layers, their shapes not stated; ``parameters`` is None if h5py, which reads the weights, is not
    installed.
    """

    inputs: tuple[TensorInfo, ...]
    outputs: tuple[TensorInfo, ...]
    layers: dict[str, int]
    parameters: int | None
    foreign: tuple[str, ...]
    version: str
    compiled: bool


def scan_keras(path: Path, kind: str) -> KerasSummary:
    """Read a ``.keras`` archive (*kind* ``keras``) or a full-model HDF5 file.

    Raises:
        RefusedError: the file is damaged, or it is an HDF5 file and h5py is not installed.
        UsageError: the file holds weights alone.
    """
    found = read_keras(path, kind)
    counted = Counter(name for name in _classes(found.config) if name not in NO_LAYERS)
    inner = _dictionary(found.config.get("config"))
    return KerasSummary(
        inputs=tuple(_inputs(found.config)),
        outputs=tuple(TensorInfo(name) for name in _ends(inner.get("output_layers"))),
        layers=dict(sorted(counted.items(), key=lambda item: (-item[1], item[0]))),
        parameters=_parameters(path, kind),
        foreign=tuple(map(str, foreign_objects(found.config))),
        version=found.version,
        compiled=bool(found.config.get("compile_config")),
    )


def _classes(config: object) -> Iterator[str]:
    """Return the class of every object in a configuration that is a layer by its form.

    Its own configuration names it.
    """
    for holder in dictionaries(config):
        kind, inner = holder.get("class_name"), holder.get("config")
        if isinstance(kind, str) and isinstance(inner, dict) and "name" in inner:
            yield kind


def _dictionary(value: object) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _inputs(config: dict[str, Any]) -> Iterator[TensorInfo]:
    """The input layers of the outermost model, else the shape it was built with."""
    inner = config.get("config")
    stated = (
        inner.get("layers") if isinstance(inner, dict) else inner
    )  # a Sequential of Keras 1 and 2.0 is a list of layers
    layers = [layer for layer in stated if isinstance(layer, dict)] if isinstance(stated, list) else []
    first = [_dictionary(layer.get("config")) for layer in layers if layer.get("class_name") == "InputLayer"]
    for layer in first:
        yield TensorInfo(
            str(layer.get("name", "")),
            _dtype(layer.get("dtype")),
            _shape(layer.get("batch_shape") or layer.get("batch_input_shape")),
        )
    built = _shape(_dictionary(config.get("build_config")).get("input_shape"))
    if not first and built:
        yield TensorInfo("", "", built)


def _shape(stated: object) -> tuple[int | None, ...] | None:
    """A shape, None if none is stated; what is not a size in it is left open."""
    if not isinstance(stated, list) or not stated:
        return None
    return tuple(size if isinstance(size, int) else None for size in stated)


def _dtype(stated: object) -> str:
    """A dtype, or the policy in its place."""
    if isinstance(stated, dict):
        stated = _dictionary(stated.get("config")).get("name")
    return stated if isinstance(stated, str) else ""


def _ends(stated: object) -> list[str]:
    """Return the names in Keras' lists of outputs.

    They are ``[name, node, tensor]``, one of them or a list or dictionary of them.
    """
    if isinstance(stated, dict):
        return [name for value in stated.values() for name in _ends(value)]
    if isinstance(stated, list):
        return (
            [stated[0]]
            if stated and isinstance(stated[0], str)
            else [name for value in stated for name in _ends(value)]
        )
    return []


def _parameters(path: Path, kind: str) -> int | None:
    """The elements of the model's variables."""
    if not deps.installed("h5py"):
        return None
    with weights_in(path) if kind == "keras" else hdf5_file(path, path.name, path.stat().st_size) as book:
        return _elements(book if kind == "keras" else book.get("model_weights", book))


def _elements(group: h5py.Group) -> int:
    dataset = require("h5py").Dataset
    sizes: list[int] = []

    def visit(name: str, item: h5py.Group | h5py.Dataset) -> None:
        if (
            isinstance(item, dataset)
            and item.dtype.kind in "fiub"
            and not any(part in STATE for part in name.split("/"))
        ):
            sizes.append(math.prod(item.shape))

    group.visititems(visit)
    return sum(sizes)
