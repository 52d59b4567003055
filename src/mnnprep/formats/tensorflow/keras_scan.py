"""What a Keras file says of itself: its configuration and its weights' shapes, read without Keras."""

from __future__ import annotations

import math
import zipfile
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec

from mnnprep import deps
from mnnprep.deps import require
from mnnprep.formats.tensor_info import TensorInfo
from mnnprep.formats.tensorflow.keras_files import layers, read_config, read_h5_config

CODE = "Lambda"  # a layer that holds Python bytecode
NO_LAYERS = ("Functional", "Sequential", "Model", "DTypePolicy", "Policy")
STATE = ("optimizer", "seed_generator")  # groups of variables that are no weights of the model


class KerasSummary(msgspec.Struct, frozen=True, kw_only=True):
    """``layers`` counts them by class; ``code`` names those that hold Python code; ``outputs`` are layers, their shapes not stated;
    ``parameters`` is None where h5py, which reads the weights, is not installed."""

    inputs: tuple[TensorInfo, ...]
    outputs: tuple[TensorInfo, ...]
    layers: dict[str, int]
    parameters: int | None
    code: tuple[str, ...]
    version: str
    compiled: bool


def scan_keras(path: Path, kind: str) -> KerasSummary:
    """Read a ``.keras`` archive (*kind* ``keras``) or a full-model HDF5 file. Raises RefusedError for a damaged one, and for an
    HDF5 file where h5py is not installed; UsageError for weights alone."""
    config = read_config(path) if kind == "keras" else read_h5_config(path)
    found = [item for item in layers(config) if item[0] not in NO_LAYERS]
    inner = config.get("config", {})
    counted = Counter(name for name, _ in found)
    return KerasSummary(
        inputs=tuple(_inputs(config)), outputs=tuple(TensorInfo(name) for name in _ends(inner.get("output_layers"))),
        layers=dict(sorted(counted.items(), key=lambda item: (-item[1], item[0]))), parameters=_parameters(path, kind),
        code=tuple(name for layer, name in found if layer == CODE), version=_version(path, kind), compiled=bool(config.get("compile_config")),
    )  # fmt: skip


def _inputs(config: Any) -> Iterator[TensorInfo]:
    """The input layers of the outermost model, else the shape it was built with."""
    inner = config.get("config", {})
    stated = inner.get("layers", []) if isinstance(inner, dict) else []
    first = [layer.get("config", {}) for layer in stated if layer.get("class_name") == "InputLayer"]
    for layer in first:
        shape = layer.get("batch_shape") or layer.get("batch_input_shape")
        yield TensorInfo(str(layer.get("name", "")), _dtype(layer.get("dtype")), tuple(shape) if shape else None)
    built = config.get("build_config") or {}
    if not first and built.get("input_shape"):
        yield TensorInfo("", "", tuple(built["input_shape"]))


def _dtype(stated: Any) -> str:
    """A dtype, or the policy in its place."""
    if isinstance(stated, dict):
        stated = stated.get("config", {}).get("name", "")
    return str(stated or "")


def _ends(stated: Any) -> list[str]:
    """The names in Keras' lists of outputs: ``[name, node, tensor]``, one of them or a list or dictionary of them."""
    if isinstance(stated, dict):
        return [name for value in stated.values() for name in _ends(value)]
    if isinstance(stated, list):
        return [stated[0]] if stated and isinstance(stated[0], str) else [name for value in stated for name in _ends(value)]
    return []


def _version(path: Path, kind: str) -> str:
    if kind == "keras":
        with zipfile.ZipFile(path) as archive:
            return str(msgspec.json.decode(archive.read("metadata.json")).get("keras_version", ""))
    with require("h5py").File(path, "r") as file:
        version = file.attrs.get("keras_version", "")
        return version.decode() if isinstance(version, bytes) else str(version)


def _parameters(path: Path, kind: str) -> int | None:
    """The elements of the model's variables."""
    if not deps.installed("h5py"):
        return None
    if kind != "keras":
        with require("h5py").File(path, "r") as file:
            return _elements(file.get("model_weights", file))
    with zipfile.ZipFile(path) as archive:
        name = next((n for n in archive.namelist() if n.endswith(".weights.h5")), "")
        if not name:
            return None
        with archive.open(name) as stream, require("h5py").File(stream, "r") as file:
            return _elements(file)


def _elements(group: Any) -> int:
    dataset = require("h5py").Dataset
    sizes: list[int] = []

    def visit(name: str, item: Any) -> None:
        if isinstance(item, dataset) and item.dtype.kind in "fiub" and not any(part in STATE for part in name.split("/")):
            sizes.append(math.prod(item.shape))

    group.visititems(visit)
    return sum(sizes)
