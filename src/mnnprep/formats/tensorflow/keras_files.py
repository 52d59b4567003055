"""Keras models: ``.keras`` archives, full-model HDF5 files (old ones through tf_keras), and models in memory.

Format facts: keras/src/saving/saving_lib.py (config.json in a zip), keras/src/legacy/saving/legacy_h5_format.py
(the attribute ``model_config`` of the file's root; a file without it holds weights alone).
"""

from __future__ import annotations

import contextlib
import json
import os
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from mnnprep.core.files import Arrays
from mnnprep.core.messages import Source, Wants
from mnnprep.core.prose import first_said
from mnnprep.deps import require
from mnnprep.errors import RefusedError, UsageError
from mnnprep.formats.tensorflow.load import Loaded, from_function, specs_of


def load_keras(source: Source, wants: Wants) -> Loaded:
    """Load a Keras file. Raises UsageError for weights alone, RefusedError for code that it would need."""
    path = Path(source.path)
    config = read_config(path) if source.kind == "keras" else read_h5_config(path)
    lambdas = [name for kind, name in layers(config) if kind == "Lambda"]
    if lambdas and not source.trust:
        raise RefusedError(
            "a Lambda layer holds Python bytecode, which loading the model would execute", seen=", ".join(lambdas[:5]),
            next="pass --trust if you trust where it comes from, or replace the layer and save the model again",
        )  # fmt: skip
    link = path if path.suffix in (".keras", ".h5", ".hdf5") else _with_suffix(path, ".keras" if source.kind == "keras" else ".h5")
    notes: list[str] = []
    refusals: dict[str, str] = {}
    for package in ("keras", "tf_keras"):
        models = require(f"{package}.models")
        try:
            model = models.load_model(str(link), compile=False, **({"safe_mode": False} if source.trust else {}))
        except Exception as error:  # Keras raises TypeError, ValueError, AttributeError and more
            refusals[package] = first_said(error)
            notes.append(f"{package} can't load it: {refusals[package]}")
            continue
        loaded = from_model(model, wants, None)
        loaded.notes += notes
        return loaded
    custom = sorted({kind for kind, _ in layers(config) if not _known(kind)})
    own = f"its layers {', '.join(custom)} are your own code: give a factory that builds the model, with this file as --weights"
    raise RefusedError(
        "Keras can't load this model", seen="; ".join(f"{p}: {r}" for p, r in refusals.items()),
        next=own if custom else "load it where it was made and save it again as .keras",
    )  # fmt: skip


def _with_suffix(path: Path, suffix: str) -> Path:
    """A link to the file under a name that Keras takes, in this step's own directory."""
    link = Path(f"source{suffix}").absolute()
    with contextlib.suppress(FileExistsError):
        os.symlink(path, link)
    return link


def read_config(path: Path) -> dict[str, Any]:
    with zipfile.ZipFile(path) as archive:
        config: dict[str, Any] = json.loads(archive.read("config.json"))
    return config


def read_h5_config(path: Path) -> dict[str, Any]:
    """The architecture in a Keras HDF5 file. Raises UsageError for one that holds weights alone, RefusedError for a damaged one."""
    h5py = require("h5py")
    try:
        with h5py.File(path, "r") as file:
            text = file.attrs.get("model_config")
    except OSError as error:
        raise RefusedError("the HDF5 file can't be read", seen=first_said(error), next="download or save it again") from error
    if text is None:
        raise UsageError(
            "this file holds weights alone, no model", seen=f"{path.name}: no attribute model_config",
            next=f"give the code that builds the model, and this file as its weights: mnnprep prepare file.py:callable --weights {path.name} -o DIR",
        )  # fmt: skip
    config: dict[str, Any] = json.loads(text)
    return config


def layers(config: Any) -> Iterator[tuple[str, str]]:
    """Every (class, name) of the layers in a configuration, nested models included."""
    if isinstance(config, dict):
        inner = config.get("config")
        if isinstance(config.get("class_name"), str) and isinstance(inner, dict) and "name" in inner:
            yield config["class_name"], str(inner["name"])
        for value in config.values():
            yield from layers(value)
    elif isinstance(config, list):
        for value in config:
            yield from layers(value)


def _known(kind: str) -> bool:
    return any(hasattr(require(f"{package}.layers"), kind) or hasattr(require(package), kind) for package in ("keras", "tf_keras"))


def is_model(value: Any) -> bool:
    """Whether *value* is a model of Keras 3 or of tf_keras, without importing the one it is not of."""
    return any(c.__name__ == "Model" and c.__module__.split(".")[0] in ("keras", "tf_keras") for c in type(value).__mro__)


def from_model(model: Any, wants: Wants, example: Any) -> Loaded:
    """A Keras model as a source: called with ``training=False``, its inputs by name, its outputs by key or layer name."""
    tf = require("tensorflow")
    tensors = getattr(model, "inputs", None)
    if tensors:
        names = _unique([t.name.partition(":")[0] for t in tensors])
        described = specs_of(zip(names, map(_described, tensors), strict=True), wants)
    elif wants.inputs:  # a subclassed model that was never built
        names, described = [s.name for s in wants.inputs], wants.inputs
    else:
        raise UsageError(
            "the inputs of this model are not known", seen=f"{type(model).__name__} {model.name} was never built",
            next="give each with --input, for example --input 'x=float32[batch,224,224,3]', or build the model in the factory",
        )  # fmt: skip
    pack = _packer(model, names)
    specs = [tf.TensorSpec([e if isinstance(e, int) else None for e in s.shape], s.dtype, name=s.name) for s in described]

    def forward(*values: Any) -> Any:
        return model(pack(list(values)), training=False)

    function = tf.function(forward, autograph=False).get_concrete_function(*specs)
    outputs, flatten = _outputs(model, function.structured_outputs)
    flat = tf.function(lambda *values: flatten(forward(*values)), autograph=False).get_concrete_function(*specs)

    def call(arrays: Arrays) -> Arrays:
        made = flatten(forward(*(tf.constant(arrays[n]) for n in names)))
        return dict(zip(outputs, (np.asarray(t) for t in made), strict=True))

    loaded = from_function(flat, names, outputs, tuple(described), call, keep=model)
    loaded.parameters = int(model.count_params())
    if example is not None:
        values = (
            example if isinstance(example, dict) else dict(zip(names, example if isinstance(example, (tuple, list)) else [example], strict=False))
        )
        loaded.example = {n: np.asarray(v) for n, v in values.items()}
    return loaded


class _described:
    """A KerasTensor as `specs_of` reads tensors."""

    def __init__(self, tensor: Any) -> None:
        tf = require("tensorflow")
        self.dtype = tf.as_dtype(tensor.dtype)
        self.shape = tf.TensorShape(tensor.shape)


def _packer(model: Any, names: list[str]) -> Any:
    """How a flat list of tensors becomes the structure that the model was built with."""
    structure = getattr(model, "_inputs_struct", None)
    if structure is not None:
        tree = require("keras.tree")
        return lambda values: tree.pack_sequence_as(structure, values)
    nested = getattr(model, "_nested_inputs", None)
    if nested is not None:
        tf = require("tensorflow")
        return lambda values: tf.nest.pack_sequence_as(nested, values)
    return lambda values: values[0] if len(values) == 1 else dict(zip(names, values, strict=True))


def _outputs(model: Any, structure: Any) -> tuple[list[str], Any]:
    """The outputs' names, and how to flatten a result in their order."""
    if isinstance(structure, dict):
        keys = list(structure)
        return keys, lambda made: [made[k] for k in keys]
    tf = require("tensorflow")
    count = len(tf.nest.flatten(structure))
    names = list(getattr(model, "output_names", None) or [])
    if len(names) != count or len(set(names)) != count:
        names = [f"output_{i}" for i in range(count)]
    return names, lambda made: list(tf.nest.flatten(made))


def _unique(names: list[str]) -> list[str]:
    return [n if names.count(n) == 1 else f"{n}_{i}" for i, n in enumerate(names)]
