"""Keras models: ``.keras`` archives, full-model HDF5 files, and models in memory.

Old HDF5 files go through tf_keras.
"""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from mnnprep.deps import require
from mnnprep.errors import MnnprepError, RefusedError, UsageError
from mnnprep.formats.tensorflow import effects
from mnnprep.formats.tensorflow.keras_config import read_keras, refuse_foreign_weights, write_with_config
from mnnprep.formats.tensorflow.keras_judge import Foreign, foreign_objects, without_compiled
from mnnprep.formats.tensorflow.loaded import Loaded, example_by_name, from_function, specs_of
from mnnprep.model.files import Arrays
from mnnprep.model.messages import InputSpecs, Source
from mnnprep.model.signature import TensorSpec
from mnnprep.safety.error_text import message
from mnnprep.text import listed

if TYPE_CHECKING:
    from mnnprep.formats.tensorflow.types import ConcreteFunction, Model, StructuredValue, Tensor

SAFE_MODE = re.compile("safe_mode|unsafe_deserialization|security")  # in each refusal of Keras' safe mode


def load_keras(source: Source, wants: InputSpecs) -> Loaded:
    """Load a Keras file whose objects are all in the lists of `keras_table`, or with ``trust`` any.

    tf_keras, which refuses less, is asked for what an older Keras wrote, and never after a refusal of safe
    mode.

    Raises:
        UsageError: weights alone.
        RefusedError: the model needs code of its own, or takes data from elsewhere.
    """
    path = Path(source.path)
    found = read_keras(path, source.kind)
    foreign = foreign_objects(found.config)
    if not source.trust:
        refuse_foreign(foreign)
    refuse_foreign_weights(path, source.kind)
    file = _loadable(path, source.kind, found.config)
    notes: list[str] = []
    refusals: dict[str, str] = {}
    for package in ("keras", "tf_keras"):
        models = require(f"{package}.models")
        try:
            model = models.load_model(str(file), compile=False, safe_mode=not source.trust)
        except Exception as error:  # Keras raises TypeError, ValueError, AttributeError and more
            refusals[package] = message(error)
            notes.append(f"{package} can't load it: {refusals[package]}")
            if not source.trust and (SAFE_MODE.search(str(error)) or found.version.startswith("3.")):
                break
            continue
        loaded = _called(model, wants)
        if not source.trust:
            effects.refuse(effects.of_function(loaded.function))
        loaded.notes += notes
        return loaded
    custom = sorted({f.kind for f in foreign if f.own})
    own = (
        f"its layers {', '.join(custom)} are your own code: give a factory that builds the model, with this"
        " file as --weights"
    )
    raise RefusedError(
        "Keras can't load this model",
        seen="; ".join(f"{p}: {r}" for p, r in refusals.items()),
        next=own if custom else "load it where it was made and save it again as .keras",
    )


def _called(model: Model, wants: InputSpecs) -> Loaded:
    try:
        return from_model(model, wants, None)
    except MnnprepError:
        raise
    except Exception as error:  # what a layer raises
        raise RefusedError(
            "Keras can't call this model",
            seen=f"{type(error).__name__}: {message(error)}",
            next="load and call it where it was made",
        ) from error


def refuse_foreign(foreign: list[Foreign]) -> None:
    """Refuse what is in none of the lists, by its name, and say how to go on."""
    if foreign:
        raise RefusedError(
            "loading this model would call code that is not known to compute alone",
            seen=listed(list(map(str, foreign)), 5, "; "),
            next=(
                "pass --trust if you trust where it comes from, or give a factory that builds the model, with"
                " this file as --weights"
            ),
        )


def _loadable(path: Path, kind: str, config: dict[str, Any]) -> Path:
    """Return the file under a name that Keras takes.

    It is the file itself, a link to it, or a copy without compiled models inside the model.

    Loaders make the optimizers, losses and metrics of inner models whatever they are told of the outermost.
    """
    suffix = ".keras" if kind == "keras" else ".h5"
    bare = without_compiled(config)
    if bare is config:
        right = path.suffix == suffix or (kind != "keras" and path.suffix == ".hdf5")
        return path if right else _with_suffix(path, suffix)
    copy = Path(f"uncompiled{suffix}").absolute()
    write_with_config(path, copy, kind, bare)
    return copy


def _with_suffix(path: Path, suffix: str) -> Path:
    """A link to the file under a name that Keras takes, in this step's own directory."""
    link = Path(f"source{suffix}").absolute()
    with contextlib.suppress(FileExistsError):
        os.symlink(path, link)
    return link


def is_model(value: object) -> bool:
    """Whether *value* is a model of Keras 3 or of tf_keras, without importing the one it is not of."""
    return any(
        c.__name__ == "Model" and c.__module__.split(".")[0] in ("keras", "tf_keras")
        for c in type(value).__mro__
    )


def from_model(model: Model, wants: InputSpecs, example: StructuredValue) -> Loaded:
    """Return a Keras model as a source.

    It is called with ``training=False``, its inputs by name, its outputs by key or layer name.
    """
    tf = require("tensorflow")
    tensors = getattr(model, "inputs", None)
    if tensors:
        names = _unique([t.name.partition(":")[0] for t in tensors])
        described = specs_of(zip(names, map(_described, tensors), strict=True), wants, batched=True)
    elif wants.inputs:  # a subclassed model that was never built
        names, described = [s.name for s in wants.inputs], wants.inputs
    else:
        raise UsageError(
            "the inputs of this model are not known",
            seen=f"{type(model).__name__} {model.name} was never built",
            next=(
                "give each with --input, for example --input 'x=float32[batch,224,224,3]', or build the model"
                " in the factory"
            ),
        )
    pack = _packer(model, names)

    def forward(*values: Tensor) -> StructuredValue:
        return model(pack(list(values)), training=False)

    function, described = _traced(forward, tuple(described), wants)
    specs = _signature(described)
    outputs, flatten = _outputs(model, function.structured_outputs)
    flat = tf.function(lambda *values: flatten(forward(*values)), autograph=False).get_concrete_function(
        *specs
    )

    def call(arrays: Arrays) -> Arrays:
        made = flatten(forward(*(tf.constant(arrays[n]) for n in names)))
        return dict(zip(outputs, (np.asarray(t) for t in made), strict=True))

    loaded = from_function(flat, names, outputs, described, call, keep=model)
    loaded.parameters = int(model.count_params())
    loaded.example = example_by_name(example, names)
    return loaded


def _signature(described: Iterable[TensorSpec]) -> list[object]:
    tf = require("tensorflow")
    return [
        tf.TensorSpec([e if isinstance(e, int) else None for e in s.shape], s.dtype, name=s.name)
        for s in described
    ]


def _traced(
    forward: Callable[..., StructuredValue], described: tuple[TensorSpec, ...], wants: InputSpecs
) -> tuple[ConcreteFunction, tuple[TensorSpec, ...]]:
    """The function of *forward* for inputs as *described*, and these.

    Some layers can't be traced at an open size (Keras 3's bilinear UpSampling2D); where the user fixed sizes,
    they are traced at those.

    Raises:
        RefusedError: it can't be traced at open sizes, and none is fixed.
    """
    function = require("tensorflow").function(forward, autograph=False)
    try:
        return function.get_concrete_function(*_signature(described)), described
    except Exception as error:  # what a layer raises
        fixed = tuple(_fixed(spec, wants) for spec in described)
        if fixed != described:
            return function.get_concrete_function(*_signature(fixed)), fixed
        unsized = [s for s in described if not all(isinstance(size, int) for size in s.shape)]
        if not unsized:
            raise
        raise RefusedError(
            "Keras can't call this model with inputs of open sizes",
            seen=f"{', '.join(map(str, unsized))}: {message(error)}",
            next="fix the sizes with --input, for example --input '{}={}[{}]'".format(
                unsized[0].name,
                unsized[0].dtype,
                ",".join(str(size) if isinstance(size, int) else "8" for size in unsized[0].shape),
            ),
        ) from error


def _fixed(spec: TensorSpec, wants: InputSpecs) -> TensorSpec:
    """*spec* with the sizes that the user gave for its open ones."""
    want = next((w for w in wants.inputs if w.name == spec.name and len(w.shape) == len(spec.shape)), spec)
    shape = tuple(
        asked if isinstance(asked, int) and not isinstance(have, int) else have
        for have, asked in zip(spec.shape, want.shape, strict=True)
    )
    return TensorSpec(spec.name, spec.dtype, shape)


class _described:
    """A KerasTensor as `specs_of` reads tensors."""

    def __init__(self, tensor: Tensor) -> None:
        tf = require("tensorflow")
        self.dtype = tf.as_dtype(tensor.dtype)
        self.shape = tf.TensorShape(tensor.shape)


def _packer(model: Model, names: list[str]) -> Callable[[list[Tensor]], StructuredValue]:
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


def _outputs(
    model: Model, structure: StructuredValue
) -> tuple[list[str], Callable[[StructuredValue], list[Tensor]]]:
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
