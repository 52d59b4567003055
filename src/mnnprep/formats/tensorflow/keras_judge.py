"""The objects that a Keras configuration would make besides Keras' own computing ones.

They are told before any loader is called.

Every object in a configuration is a dictionary with a ``class_name`` (keras/src/saving/serialization_lib.py
and keras/src/legacy/saving/serialization.py: ``module`` and ``registered_name`` say where Keras 3 looks for
it); activations, initializers, regularizers and constraints may also stand there as a text.  All of them are
held against the lists of `keras_table`, in whatever place they stand; an object in none of them is foreign.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from mnnprep.errors import RefusedError
from mnnprep.formats.tensorflow import keras_table as table
from mnnprep.formats.tensorflow.operators import STATELESS
from mnnprep.formats.tensorflow.symbols import is_pure
from mnnprep.model.json_value import Json
from mnnprep.wire.protobuf import LENGTH, WireError, fields, text

COMPILED = "compile_config"  # optimizers, losses and metrics, which are never made
DEEPEST = 500  # levels of nesting; Keras' loaders walk a configuration by recursion
_PACKAGES = (
    "layers|models|engine|ops|initializers|regularizers|constraints|activations"
    "|dtype_policies|mixed_precision"
)
_MODULE = re.compile(
    rf"(tf_)?keras(\.src)?(\.({_PACKAGES}|quantizers|random|applications|legacy)(\.[a-z0-9_]+)*)?"
)


@dataclass(frozen=True)
class Foreign:
    """An object that is not in the lists.

    It has its class or function, the name of its layer (empty for others), the reason, and whether it is a
    class that its author wrote.
    """

    kind: str
    name: str
    reason: str
    own: bool = False

    def __str__(self) -> str:
        return f"{self.kind} {self.name}".strip() + f" {self.reason}"


def foreign_objects(config: object) -> list[Foreign]:
    """Return the objects in *config* that loading would make and that may do more than compute.

    *config* is as JSON gives it. Only objects of the lists are known to compute alone.

    The ``compile_config`` of a model is left out: see `without_compiled`.

    Raises:
        RefusedError: the configuration is nested too deep, or the class of an object is not text.
    """
    return [found for holder in dictionaries(config) for found in _judged(holder)]


def damaged(seen: str) -> RefusedError:
    """The refusal of a configuration that is not as the format says."""
    return RefusedError(
        "the Keras configuration is damaged", seen=seen, next="download the file or save the model again"
    )


def without_compiled(config: dict[str, Any]) -> dict[str, Any]:
    """Return *config* without any ``compile_config``.

    *config* itself if only the outermost model has one, or none.
    """
    inner = any(COMPILED in holder for holder in dictionaries(config) if holder is not config)
    return {key: _stripped(value) for key, value in config.items() if key != COMPILED} if inner else config


def _stripped(value: Json) -> Json:
    if isinstance(value, dict):
        return {key: _stripped(inner) for key, inner in value.items() if key != COMPILED}
    return [_stripped(inner) for inner in value] if isinstance(value, list) else value


def dictionaries(config: object) -> Iterator[dict[str, Any]]:
    """Every dictionary in *config*, in order."""
    waiting: list[tuple[object, int]] = [(config, 0)]
    while waiting:
        value, depth = waiting.pop()
        if depth > DEEPEST:
            raise damaged(f"nested more than {DEEPEST} levels deep")
        if isinstance(value, dict):
            yield value
            waiting += [(inner, depth + 1) for key, inner in reversed(value.items()) if key != COMPILED]
        elif isinstance(value, list):
            waiting += [(inner, depth + 1) for inner in reversed(value)]


def _judged(holder: dict[str, Any]) -> Iterator[Foreign]:
    if "class_name" in holder:
        yield from _judged_object(holder)
    for key, value in holder.items():
        names = table.NAMED.get(key.rpartition("_")[2])
        if names is None or value is None or isinstance(value, dict | bool | int | float):
            continue
        if not isinstance(value, str):
            yield Foreign(key, "", "is neither a name nor an object")
        elif value not in names:
            yield Foreign(value, "", f"is not a {key.rpartition('_')[2]} of Keras")


def _judged_object(holder: dict[str, Any]) -> Iterator[Foreign]:
    kind, inner = holder["class_name"], holder.get("config")
    if not isinstance(kind, str):
        raise damaged(f"a class_name of the type {type(kind).__name__}")
    name = inner.get("name") if isinstance(inner, dict) else None
    name = name if isinstance(name, str) else ""
    if kind == "function":
        yield from _judged_function(holder)
    elif reason := table.REFUSED_LAYERS.get(kind) or table.REFUSED_VALUES.get(kind):
        yield Foreign(kind, name, reason)
    elif kind in table.REFUSED_OPERATIONS:
        yield Foreign(kind, name, "calls a function that the file holds")
    elif kind not in table.CLASSES and not _is_application_layer(kind):
        yield Foreign(kind, name, "is not a Keras class: it is the model author's own code", own=True)
    elif (place := _elsewhere(holder, kind)) is not None:
        yield Foreign(kind, name, place)
    elif isinstance(inner, dict):
        yield from _judged_contents(kind, name, inner)


def _is_application_layer(kind: str) -> bool:
    return kind.removeprefix("Custom>") in table.APPLICATION_LAYERS


def _elsewhere(holder: dict[str, Any], kind: str) -> str | None:
    """Say why an object of an allowed name is none of Keras' own.

    By its module, or by the name it was registered under.
    """
    module, registered = holder.get("module"), holder.get("registered_name")
    if module is not None and not (
        isinstance(module, str) and _MODULE.fullmatch(module) and "test" not in module
    ):
        return f"is from the module {module!r}, not from Keras"
    if registered not in (None, kind) and not (
        isinstance(registered, str) and _is_application_layer(registered)
    ):
        return f"is registered as {registered!r}: it is the model author's own code"
    return None


def _judged_function(holder: dict[str, Any]) -> Iterator[Foreign]:
    """A function by its name: an activation of Keras and nothing else."""
    name, module, registered = (holder.get(k) for k in ("config", "module", "registered_name"))
    known = isinstance(name, str) and name in table.ACTIVATIONS and registered in (None, name)
    if not known or not (module in (None, "builtins") or _elsewhere({"module": module}, "") is None):
        yield Foreign(
            f"function {name}" if isinstance(name, str) else "function", "", "is not a Keras activation"
        )


def _judged_contents(kind: str, name: str, inner: dict[str, Any]) -> Iterator[Foreign]:
    """Judge what some layers take besides numbers and objects.

    Names of operations, a node, a path to a vocabulary.
    """
    if kind in ("TFOpLambda", "SlicingOpLambda"):
        symbol = inner.get("function")
        if not (isinstance(symbol, str) and is_pure(symbol)):
            yield Foreign(kind, name, f"calls tf.{symbol}, which is not known to compute alone")
    elif kind == "TensorFlowOpLayer" and (operator := _operator(inner.get("node_def"))) not in STATELESS:
        yield Foreign(
            kind, name, f"runs the operator {operator or '(unreadable)'}, which is not known to compute alone"
        )
    for key in ("vocabulary", "idf_weights"):
        if kind in table.LAYERS and not isinstance(inner.get(key), list | None):
            yield Foreign(kind, name, f"reads its {key} from a file")


def _operator(node: object) -> str:
    """Return the operator of a NodeDef, which is kept as JSON or as its bytes.

    In the bytes it is field 2 (node_def.proto: op = 2). Empty for another thing.
    """
    if isinstance(node, dict):
        return operator if isinstance(operator := node.get("op"), str) else ""
    if not isinstance(node, str):
        return ""
    data = node.encode("utf-8", "surrogatepass")
    try:
        texts = [
            text(data, *extent)
            for number, kind, *extent in fields(data, 0, len(data))
            if (number, kind) == (2, LENGTH)
        ]
    except (WireError, UnicodeDecodeError):
        return ""
    return texts[-1] if texts else ""
