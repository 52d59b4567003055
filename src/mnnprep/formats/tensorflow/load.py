"""Loading a TensorFlow source: a SavedModel, a factory; what all kinds have in common."""

from __future__ import annotations

import inspect
import sys
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from mnnprep.core.files import Arrays
from mnnprep.core.messages import Source, Wants
from mnnprep.core.net import Refused
from mnnprep.core.signature import DTYPES, TensorSpec, dynamic_specs
from mnnprep.core.texts import cause, message
from mnnprep.deps import require
from mnnprep.errors import MnnprepError, RefusedError, UsageError
from mnnprep.formats.factory import arguments_for, find_factory, place_of
from mnnprep.formats.tensorflow import effects, graphs
from mnnprep.formats.tensorflow.keras_config import refuse_foreign_weights
from mnnprep.formats.tensorflow.skeleton import Skeleton, of_function


@dataclass
class Loaded:
    """A source in memory, in inference mode.

    ``call`` gives the outputs by name, in order; ``skeleton`` makes the inference graph; ``training`` is what
    of training is left on the way to the outputs; ``keep`` holds what must live as long as ``call``.
    """

    inputs: tuple[TensorSpec, ...]
    call: Callable[[Arrays], Arrays]
    skeleton: Callable[[], Skeleton]
    training: list[str]
    parameters: int = 0
    example: Arrays = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    keep: Any = None
    function: Any = None  # the ConcreteFunction that the source is, if it is one


def load(source: Source, wants: Wants) -> Loaded:
    """Load *source* on one thread of the CPU. Raises UsageError or RefusedError."""
    tf = require("tensorflow")
    tf.config.threading.set_intra_op_parallelism_threads(1)
    tf.config.threading.set_inter_op_parallelism_threads(1)
    tf.get_logger().setLevel("ERROR")
    for entry in reversed(source.search_path):
        if entry not in sys.path:
            sys.path.insert(0, entry)
    if source.kind == "savedmodel":
        return _savedmodel(source, wants)
    if source.kind in ("keras", "keras-h5"):
        from mnnprep.formats.tensorflow.keras_files import load_keras

        return load_keras(source, wants)
    if source.kind == "tf-factory":
        return _factory(source, wants)
    from mnnprep.formats.tensorflow.graph_files import load_checkpoint, load_graph

    return load_checkpoint(source, wants) if source.kind == "tf-checkpoint" else load_graph(source, wants)


def _savedmodel(source: Source, wants: Wants) -> Loaded:
    tf = require("tensorflow")
    try:
        if not source.trust:
            effects.refuse(effects.of_saved_model(source.path))
        model = tf.saved_model.load(source.path)
    except MnnprepError:
        raise
    except Exception as error:  # NotFoundError, OSError, and what Python functions in the graph raise
        raise RefusedError(
            "TensorFlow can't load this SavedModel",
            seen=message(error),
            next="load it with tf.saved_model.load where it was made",
        ) from error
    signatures = dict(model.signatures)
    if not signatures:
        raise RefusedError(
            "the SavedModel has no signature",
            seen=Path(source.path).name,
            next=(
                "save it with one: tf.saved_model.save(model, path,"
                " signatures=model.__call__.get_concrete_function(...)), or model.export(path)"
            ),
        )
    name = source.signature or ("serving_default" if "serving_default" in signatures else "")
    if name not in signatures:
        told = (
            f"the SavedModel has no signature {name}"
            if name
            else "the SavedModel has no signature serving_default"
        )
        raise UsageError(
            told,
            seen=", ".join(signatures),
            next="choose one: " + ", ".join(f"--signature {s}" for s in signatures),
        )
    function = signatures[name]
    keywords = list(function._arg_keywords)
    outputs = sorted(function.structured_outputs)
    tensors = function.inputs[: len(keywords)]

    def call(arrays: Arrays) -> Arrays:
        made = function(**{n: tf.constant(arrays[n]) for n in keywords})
        return {n: made[n].numpy() for n in outputs}

    return from_function(
        function, keywords, outputs, specs_of(zip(keywords, tensors, strict=True), wants), call, keep=model
    )


def from_function(
    function: Any,
    inputs: list[str],
    outputs: list[str],
    specs: tuple[TensorSpec, ...],
    call: Callable[[Arrays], Arrays],
    *,
    keep: Any,
) -> Loaded:
    """A source that is a ConcreteFunction; refuses what is no tensor of numbers."""
    refuse_texts(zip(inputs, function.inputs, strict=False), function.graph.as_graph_def(), "input")
    refuse_texts(zip(outputs, function.outputs, strict=True), None, "output")
    graph = function.graph.as_graph_def()
    roots = [t.op.name for t in function.outputs] + [o.name for o in function.graph.control_outputs]
    return Loaded(
        specs,
        guarded(call),
        lambda: of_function(function, inputs, outputs),
        graphs.leftovers(graph, roots),
        parameters=sum(int(np.prod(v.shape)) for v in function.graph.variables),
        keep=keep,
        function=function,
    )


def guarded(call: Callable[[Arrays], Arrays]) -> Callable[[Arrays], Arrays]:
    """*call* with TensorFlow's refusals of shapes and values as :class:`Refused`."""

    def run(arrays: Arrays) -> Arrays:
        try:
            return call(arrays)
        except MnnprepError:
            raise
        except Exception as error:  # tf.errors.*, ValueError, TypeError, and whatever a layer raises
            raise Refused(cause(error)) from error

    return run


def refuse_texts(tensors: Iterable[tuple[str, Any]], graph: Any, role: str) -> None:
    """Refuse a signature with text, naming the input or output and the operator that takes it."""
    for name, tensor in tensors:
        if tensor.dtype.name in DTYPES:
            continue
        users = ""
        if graph is not None:
            found = [n for n in graph.node if tensor.op.name in map(graphs.producer, n.input)]
            users = f", which goes into {found[0].op} {found[0].name}" if found else ""
        raise RefusedError(
            (
                f"the {role} {name} is of a type that MNN can't be fed"
                if role == "input"
                else f"the output {name} is of a type that MNN can't give"
            ),
            seen=f"{tensor.dtype.name}{users}",
            next=(
                "save a signature of plain tensors of numbers: text, hash tables and examples are processed"
                " before the net"
            ),
        )


def specs_of(
    tensors: Iterable[tuple[str, Any]], wants: Wants, *, batched: bool = False
) -> tuple[TensorSpec, ...]:
    """The inputs by the users' names; an unknown dimension is named after its place, or ``batch`` where it is
    the only first one.

    With *batched*, as in Keras, the unknown first dimensions of all inputs are the batch.

    Raises UsageError for an input of unknown rank that ``--input`` does not give.
    """
    declared = {s.name: s for s in wants.inputs}
    stated: list[tuple[str, str, list[int | str | None]]] = []
    for name, tensor in tensors:
        dtype = tensor.dtype.name
        if tensor.shape.rank is None:
            if name not in declared:
                raise UsageError(
                    f"the shape of the input {name} is not known",
                    seen=dtype,
                    next=f"give it with --input '{name}={dtype}[batch,...]'",
                )
            stated.append((name, dtype, list(declared[name].shape)))
            continue
        sizes: list[int | str | None] = [
            None if size is None else int(size) for size in tensor.shape.as_list()
        ]
        stated.append((name, dtype, ["batch", *sizes[1:]] if batched and sizes[:1] == [None] else sizes))
    if not stated:
        raise RefusedError(
            "the model has no input, so nothing can be proven of it", next="save it with its inputs"
        )
    return dynamic_specs(stated, batch="batch")


def _factory(source: Source, wants: Wants) -> Loaded:
    """A factory gives a keras.Model, a tf.Module or a tf.function, alone or with example inputs by name or in
    order.
    """
    tf = require("tensorflow")
    from mnnprep.formats.tensorflow.keras_files import from_model, is_model

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
            next="run it on its own and mend it",
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


def load_weights(model: Any, path: str) -> None:
    """Put a weights file (``.weights.h5``, a legacy ``.h5``, a checkpoint) into a Keras model.

    Raises UsageError where it doesn't fit, RefusedError where it takes data from elsewhere.
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


def _from_callable(model: Any, wants: Wants, example: Any) -> Loaded:
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
        given = _example(example, names)
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
    loaded.example = _example(example, names)
    return loaded


def _output_names(structure: Any) -> list[str]:
    """A name for every output: a dict's keys, else ``output_0`` and so on (as tf.saved_model.save names
    them).
    """
    tf = require("tensorflow")
    if isinstance(structure, dict):
        return (
            ["/".join(map(str, path)) for path, _ in tf.nest.flatten_with_tuple_paths(structure)]
            if hasattr(tf.nest, "flatten_with_tuple_paths")
            else sorted(structure)
        )
    return [f"output_{i}" for i in range(len(tf.nest.flatten(structure)))]


def _tensor_spec(name: str, wants: Wants, example: Arrays) -> Any:
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


def _example(example: Any, names: list[str]) -> Arrays:
    if example is None:
        return {}
    values = (
        example
        if isinstance(example, dict)
        else dict(zip(names, example if isinstance(example, (tuple, list)) else [example], strict=False))
    )
    return {str(n): np.asarray(v) for n, v in values.items()}
