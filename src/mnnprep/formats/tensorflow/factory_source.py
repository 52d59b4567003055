"""Loading what a factory makes: a Keras model, a tf.Module or a tf.function."""

from __future__ import annotations

import inspect
from pathlib import Path
from typing import TYPE_CHECKING

from mnnprep.deps import require
from mnnprep.errors import MnnprepError, UsageError
from mnnprep.formats.factory import arguments_for, find_factory, place_of
from mnnprep.formats.tensorflow.keras_config import refuse_foreign_weights
from mnnprep.formats.tensorflow.keras_files import from_model, is_model
from mnnprep.formats.tensorflow.loaded import Loaded, example_by_name, from_function, specs_of
from mnnprep.model.files import Arrays
from mnnprep.model.messages import InputSpecs, Source
from mnnprep.safety.error_text import message

if TYPE_CHECKING:
    from mnnprep.formats.tensorflow.types import Model, StructuredValue, TensorSpec


def load_factory(source: Source, wants: InputSpecs) -> Loaded:
    """Load a factory's model, alone or with example inputs by name or in order.

    A factory gives a keras.Model, a tf.Module or a tf.function.

    Raises:
        UsageError: it raises, or gives anything else.
    """
    tf = require("tensorflow")
    tf.keras.utils.set_random_seed(0)
    function = find_factory(source.path)
    arguments = arguments_for(function, source.factory_args)
    try:
        made = function(**arguments)
    except MnnprepError:
        raise
    except Exception as error:
        raise UsageError(
            f"the factory raised {type(error).__name__}",
            seen=f"{message(error)} (at {place_of(error)})",
            next="run it on its own and fix it",
        ) from error
    model, example = made if isinstance(made, tuple) and len(made) == 2 else (made, None)
    if source.weights:
        load_weights(model, source.weights)
    if is_model(model):
        return from_model(model, wants, example)
    if callable(model) and (isinstance(model, tf.Module) or hasattr(model, "get_concrete_function")):
        return _from_callable(model, wants, example)
    raise UsageError(
        "the factory returned nothing that TensorFlow runs",
        seen=type(model).__name__,
        next="return a keras.Model, a tf.Module or a tf.function",
    )


def load_weights(model: Model, path: str) -> None:
    """Put a weights file (``.weights.h5``, a legacy ``.h5``, a checkpoint) into a Keras model.

    Raises:
        UsageError: it doesn't fit.
        RefusedError: it takes data from elsewhere.
    """
    if not hasattr(model, "load_weights"):
        raise UsageError(
            "--weights goes with a Keras model",
            seen=type(model).__name__,
            next="restore the weights in the factory",
        )
    suffix = Path(path).suffix
    if suffix in (".keras", ".h5", ".hdf5"):
        refuse_foreign_weights(Path(path), "keras" if suffix == ".keras" else "keras-h5")
    try:
        model.load_weights(path)
    except Exception as error:  # Keras raises ValueError, OSError and more
        raise UsageError(
            "the weights don't fit the model",
            seen=message(error),
            next="give the weights that were saved from this model",
        ) from error


def _from_callable(model: Model, wants: InputSpecs, example: StructuredValue) -> Loaded:
    tf = require("tensorflow")
    target = model if hasattr(model, "get_concrete_function") else model.__call__
    if hasattr(target, "graph") and hasattr(target, "captured_inputs"):
        concrete = target
        names = list(concrete.structured_input_signature[1]) or [
            t.op.name for t in concrete.inputs[: len(concrete.inputs) - len(concrete.captured_inputs)]
        ]
    else:
        python = getattr(target, "python_function", target)
        names = [p for p in inspect.signature(python).parameters if p != "self"]
        given = example_by_name(example, names)
        target = target if hasattr(target, "get_concrete_function") else tf.function(target)
        signature = getattr(target, "input_signature", None)
        arguments = [] if signature else [_tensor_spec(n, wants, given) for n in names]
        concrete = target.get_concrete_function(*arguments)
        names = names[: len(concrete.inputs) - len(concrete.captured_inputs)]
    outputs = _output_names(concrete.structured_outputs)

    def call(arrays: Arrays) -> Arrays:
        made = concrete(*(tf.constant(arrays[n]) for n in names))
        return dict(zip(outputs, (t.numpy() for t in tf.nest.flatten(made)), strict=True))

    loaded = from_function(
        concrete, names, outputs, specs_of(zip(names, concrete.inputs, strict=False), wants), call, keep=model
    )
    loaded.example = example_by_name(example, names)
    return loaded


def _output_names(structure: StructuredValue) -> list[str]:
    """Return a name for every output.

    A dict's keys, else ``output_0`` and so on (as tf.saved_model.save names them).
    """
    tf = require("tensorflow")
    if isinstance(structure, dict):
        return (
            ["/".join(map(str, path)) for path, _ in tf.nest.flatten_with_tuple_paths(structure)]
            if hasattr(tf.nest, "flatten_with_tuple_paths")
            else sorted(structure)
        )
    return [f"output_{i}" for i in range(len(tf.nest.flatten(structure)))]


def _tensor_spec(name: str, wants: InputSpecs, example: Arrays) -> TensorSpec:
    tf = require("tensorflow")
    spec = next((s for s in wants.inputs if s.name == name), None)
    if spec is not None:
        return tf.TensorSpec([e if isinstance(e, int) else None for e in spec.shape], spec.dtype, name=name)
    if name in example:
        return tf.TensorSpec(example[name].shape, example[name].dtype, name=name)
    raise UsageError(
        "the inputs of this model are not known",
        seen=name,
        next=(
            f"give each with --input, for example --input '{name}=float32[batch,224,224,3]', or return"
            " (model, example_inputs)"
        ),
    )
