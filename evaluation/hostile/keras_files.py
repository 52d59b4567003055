"""Keras files whose configuration runs code, calls functions by name, or reads files; old (tf_keras) and new
layouts, written by hand.
"""

from __future__ import annotations

import base64
import json
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from evaluation.hostile.case import Canary, hostile, shared_library

Layer = dict[str, Any]
INPUT = {
    "module": "keras.layers",
    "class_name": "InputLayer",
    "config": {"batch_shape": [None, 16], "dtype": "float32", "name": "x"},
}
OLD_INPUT = {
    "class_name": "InputLayer",
    "config": {"batch_input_shape": [None, 16], "dtype": "float32", "name": "x"},
}
DENSE = {"name": "d", "units": 16, "use_bias": False, "activation": "linear"}


def keras_layer(kind: str, config: Layer, **more: Any) -> Layer:
    return {"module": "keras.layers", "class_name": kind, "config": config, "registered_name": None} | more


def sequential(layer: Layer, old: bool = False) -> Layer:
    made = {
        "class_name": "Sequential",
        "config": {"name": "s", "layers": [OLD_INPUT if old else INPUT, layer]},
    }
    return made if old else {"module": "keras", **made}


def functional(layer: Layer, old: bool = False) -> Layer:
    tensor = {
        "class_name": "__keras_tensor__",
        "config": {"shape": [None, 16], "dtype": "float32", "keras_history": ["x", 0, 0]},
    }
    nodes: list[Any] = [[["x", 0, 0, {}]]] if old else [{"args": [tensor], "kwargs": {}}]
    config = {
        "name": "f",
        "input_layers": [["x", 0, 0]],
        "output_layers": [["l", 0, 0]],
        "layers": [
            {**(OLD_INPUT if old else INPUT), "name": "x", "inbound_nodes": []},
            {"inbound_nodes": nodes, **layer, "name": "l"},
        ],
    }
    return {"class_name": "Functional", "config": config} | (
        {} if old else {"module": "keras.src.models.functional"}
    )


def nested(layer: Layer, old: bool = False) -> Layer:
    return sequential(sequential(layer, old), old)


def distributed(layer: Layer, old: bool = False) -> Layer:
    wrapped = {"class_name": "TimeDistributed", "config": {"name": "t", "layer": layer}}
    made = sequential(wrapped if old else {"module": "keras.layers", **wrapped}, old)
    key = "batch_input_shape" if old else "batch_shape"
    made["config"]["layers"][0] = {
        **made["config"]["layers"][0],
        "config": {key: [None, 4, 16], "dtype": "float32", "name": "x"},
    }
    return made


CONTAINERS: dict[str, Callable[..., Layer]] = {
    "sequential": sequential,
    "functional": functional,
    "nested": nested,
    "timedistributed": distributed,
}


def write_h5(
    canary: Canary,
    config: Any,
    weights: dict[str, dict[str, Any]] | None = None,
    version: str = "2.15.0",
    **attrs: Any,
) -> Path:
    """A full-model HDF5 file in the legacy layout."""
    import h5py

    path = canary.model / "model.h5"
    with h5py.File(path, "w") as file:
        text = config if isinstance(config, str) else json.dumps(config)
        file.attrs.update({"keras_version": version, "backend": "tensorflow", "model_config": text} | attrs)
        group = file.create_group("model_weights")
        group.attrs.update(
            {
                "backend": "tensorflow",
                "keras_version": version,
                "layer_names": [n.encode() for n in weights or {"x": {}}],
            }
        )
        for layer, arrays in (weights or {"x": {}}).items():
            inner = group.create_group(layer)
            inner.attrs["weight_names"] = [n.encode() for n in arrays]
            for name, make in arrays.items():
                make(inner, name) if callable(make) else inner.create_dataset(name, data=make)
    return path


def write_keras(
    canary: Canary,
    config: Any,
    members: dict[str, bytes] | None = None,
    weights: Callable[[Any], None] | None = None,
) -> Path:
    """A .keras archive."""
    import h5py

    path = canary.model / "model.keras"
    inner = canary.root / "model.weights.h5"
    with h5py.File(inner, "w") as file:
        (weights or (lambda f: f.create_group("layers")))(file)
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr(
            "metadata.json", json.dumps({"keras_version": "3.9.0", "date_saved": "2025-01-01@00:00:00"})
        )
        archive.writestr("config.json", config if isinstance(config, str) else json.dumps(config))
        archive.writestr("model.weights.h5", inner.read_bytes())
        for name, data in (members or {}).items():
            archive.writestr(name, data)
    inner.unlink()
    return path


def bytecode(canary: Canary) -> str:
    return base64.b64encode(canary.code()).decode()


def code_of(canary: Canary) -> Layer:
    """Bytecode as Keras 3 writes it, for a Lambda layer and for what `deserialize_keras_object` reads."""
    code = bytecode(canary)
    return {
        "class_name": "__lambda__",
        "config": {"code": code, "value": [code, None, None], "defaults": None, "closure": None},
    }


def new_lambda(canary: Canary, **config: Any) -> Layer:
    return keras_layer(
        "Lambda", {"function": code_of(canary), "arguments": {}, "output_shape": [16]} | config
    )


def old_lambda(canary: Canary, **config: Any) -> Layer:
    function = {"function": [bytecode(canary), None, None], "function_type": "lambda", "arguments": {}}
    return {
        "class_name": "Lambda",
        "config": function | {"output_shape_type": "raw", "output_shape": [16]} | config,
    }


for _name, _container in CONTAINERS.items():

    @hostile(
        "keras-h5",
        "lambda",
        f"nameless-{_name}",
        "marshalled bytecode in a Lambda layer without a name",
        control="tf_keras",
    )
    def _(canary: Canary, container: Callable[..., Layer] = _container) -> Path:
        return write_h5(canary, container(old_lambda(canary), old=True))

    @hostile(
        "keras",
        "lambda",
        f"nameless-{_name}",
        "marshalled bytecode in a Lambda layer without a name",
        control="keras",
    )
    def _(canary: Canary, container: Callable[..., Layer] = _container) -> Path:
        return write_keras(canary, container(new_lambda(canary)))


@hostile(
    "keras-h5", "lambda", "named", "marshalled bytecode in a Lambda layer with a name", control="tf_keras"
)
def _(canary: Canary) -> Path:
    return write_h5(canary, sequential(old_lambda(canary, name="l"), old=True))


@hostile(
    "keras-h5",
    "lambda",
    "old-in-keras3-file",
    "the old spelling of a Lambda in a file that says Keras 3",
    control="tf_keras",
)
def _(canary: Canary) -> Path:
    return write_h5(canary, sequential(old_lambda(canary), old=True), version="3.9.0")


@hostile(
    "keras",
    "lambda",
    "os-system",
    "a Lambda whose function is os.system, by module and name, called with a command",
    control="tf_keras",
)
def _(canary: Canary) -> Path:
    function = {"module": "os", "class_name": "function", "config": "system", "registered_name": "system"}
    layer = keras_layer(
        "Lambda",
        {
            "function": function,
            "function_type": "function",
            "output_shape_type": "raw",
            "output_shape": None,
            "arguments": {},
        },
    )
    config = functional({**layer, "inbound_nodes": [["_CONSTANT_VALUE", -1, canary.shell, {}]]}, old=True)
    return write_keras(
        canary, config | {"module": "keras.src.engine.functional", "registered_name": "Functional"}
    )


@hostile("keras-h5", "lambda", "module-function", "a Lambda of tf_keras that names a function in a module")
def _(canary: Canary) -> Path:
    (canary.model / "evil.py").write_text(f"import os\nos.system({canary.shell!r})\n")
    layer = {
        "class_name": "Lambda",
        "config": {"function": "system", "function_type": "function", "module": "evil", "arguments": {}},
    }
    return write_h5(canary, sequential(layer, old=True))


def _entries(canary: Canary) -> dict[str, tuple[str, Layer]]:
    """Layers of Keras 3 that call or import by name, or read files; by a name."""
    code = code_of(canary)
    system = {"module": "os", "class_name": "function", "config": "system", "registered_name": "system"}
    evil = {"module": "evil", "class_name": "Evil", "config": {"name": "e"}, "registered_name": "Evil"}
    layer = keras_layer
    return {
        "module-of-the-directory": ("a layer's class in a module beside the file", evil),
        "registered-name": (
            "a harmless class name with a registered name of its own",
            evil | {"class_name": "Dense", "registered_name": "evil>Evil"},
        ),
        "subprocess-popen": (
            "a class of the standard library as a layer",
            {
                "module": "subprocess",
                "class_name": "Popen",
                "config": {"args": canary.shell, "shell": True},
                "registered_name": "Popen",
            },
        ),
        "activation-lambda": ("bytecode as an activation", layer("Dense", DENSE | {"activation": code})),
        "activation-module": ("os.system as an activation", layer("Dense", DENSE | {"activation": system})),
        "initializer-lambda": (
            "bytecode as an initializer",
            layer("Dense", DENSE | {"kernel_initializer": code}),
        ),
        "initializer-module": (
            "os.system as an initializer",
            layer("Dense", DENSE | {"kernel_initializer": system}),
        ),
        "regularizer-lambda": (
            "bytecode as a regularizer",
            layer("Dense", DENSE | {"kernel_regularizer": code}),
        ),
        "constraint-lambda": (
            "bytecode as a constraint",
            layer("Dense", DENSE | {"kernel_constraint": code}),
        ),
        "torch-module": (
            "a pickled torch module",
            layer(
                "TorchModuleWrapper",
                {
                    "name": "l",
                    "module": {
                        "class_name": "__torch__",
                        "config": {"data": base64.b64encode(_pickled(canary)).decode()},
                    },
                    "data": "x",
                },
            ),
        ),
        "lambda-in-arguments": (
            "bytecode in the arguments of a layer that is none",
            layer("Activation", {"name": "a", "activation": code}),
        ),
        "wrapped-twice": (
            "a Lambda two wrappers deep",
            layer(
                "Bidirectional",
                {"name": "b", "layer": layer("TimeDistributed", {"layer": new_lambda(canary)})},
            ),
        ),
        "lambda-as-dtype": ("bytecode as a dtype policy", layer("Dense", DENSE | {"dtype": code})),
        "tfsm-layer": (
            "a SavedModel loaded from a path outside",
            layer("TFSMLayer", {"name": "l", "filepath": str(canary.secrets), "call_endpoint": "serve"}),
        ),
        "vocabulary-file": (
            "the secret as the vocabulary of TextVectorization",
            layer("TextVectorization", {"name": "l", "vocabulary": canary.secret_text}),
        ),
        "string-lookup-file": (
            "the secret as the vocabulary of StringLookup",
            layer("StringLookup", {"name": "l", "vocabulary": canary.secret_text, "invert": True}),
        ),
        "operation-class": (
            "an operation of keras.ops as a layer, with a callable",
            layer("Map", {"name": "l", "f": code}) | {"module": "keras.src.ops.core"},
        ),
        "saving-function": (
            "keras.models.load_model as a layer's function",
            layer(
                "Lambda",
                {
                    "function": {
                        "module": "keras.models",
                        "class_name": "function",
                        "config": "load_model",
                        "registered_name": "function",
                    }
                },
            ),
        ),
    }


def _pickled(canary: Canary) -> bytes:
    return f"cposix\nsystem\n(S{canary.shell!r}\ntR.".encode()


class _Named:
    """A place for the layers' names without a canary."""

    def __new__(cls) -> dict[str, tuple[str, Layer]]:  # type: ignore[misc]
        return _entries(Canary(Path("/nowhere")))


FIRES = ("lambda-in-arguments",)
for _name, (_tries, _) in _Named().items():  # type: ignore[attr-defined]

    @hostile("keras", "config", _name, _tries, control="keras" if _name in FIRES else "")
    def _(canary: Canary, name: str = _name) -> Path:
        (canary.model / "evil.py").write_text(f"import os\nos.system({canary.shell!r})\nclass Evil: pass\n")
        return write_keras(canary, sequential(_entries(canary)[name][1]))


def tf_op(symbol: str, *arguments: Any, **named: Any) -> Layer:
    """A TFOpLambda of tf_keras, called on the arguments in place of a tensor."""
    layer = {
        "class_name": "TFOpLambda",
        "config": {"name": "l", "trainable": True, "dtype": "float32", "function": symbol},
    }
    return functional({**layer, "inbound_nodes": [["_CONSTANT_VALUE", -1, arguments[0], named]]}, old=True)


@hostile("keras-h5", "tfoplambda", "write-file", "io.write_file as an operation", control="tf_keras")
def _(canary: Canary) -> Path:
    return write_h5(canary, tf_op("io.write_file", canary.written, contents="x"))


@hostile(
    "keras-h5",
    "tfoplambda",
    "write-file-nameless",
    "io.write_file as an operation without a name",
    control="tf_keras",
)
def _(canary: Canary) -> Path:
    config = tf_op("io.write_file", canary.written, contents="x")
    del config["config"]["layers"][1]["config"]["name"]
    return write_h5(canary, config)


@hostile("keras-h5", "tfoplambda", "read-file", "io.read_file of the secret as an output")
def _(canary: Canary) -> Path:
    return write_h5(canary, tf_op("io.read_file", canary.secret))


@hostile(
    "keras-h5",
    "tfoplambda",
    "load-op-library",
    "load_op_library of a shared library with a constructor",
    control="tf_keras",
)
def _(canary: Canary) -> Path:
    return write_h5(canary, tf_op("load_op_library", str(shared_library(canary))))


@hostile("keras-h5", "tfoplambda", "print-to-file", "tf.print to a file", control="tf_keras")
def _(canary: Canary) -> Path:
    return write_h5(canary, tf_op("print", "x", output_stream=f"file://{canary.written}"))


@hostile("keras-h5", "tfoplambda", "slicing", "a SlicingOpLambda that names io.write_file")
def _(canary: Canary) -> Path:
    config = tf_op("io.write_file", canary.written, contents="x")
    config["config"]["layers"][1]["class_name"] = "SlicingOpLambda"
    return write_h5(canary, config)


@hostile("keras-h5", "tfoplambda", "instance-method", "an InstanceMethod layer that calls what it names")
def _(canary: Canary) -> Path:
    layer = {"class_name": "InstanceMethod", "config": {"name": "l", "method_name": "__reduce__"}}
    return write_h5(canary, functional(layer, old=True))


@hostile("keras-h5", "tfoplambda", "op-layer", "a TensorFlowOpLayer with the NodeDef of WriteFile")
def _(canary: Canary) -> Path:
    node = {"name": "w", "op": "WriteFile", "input": ["f", "x"]}
    layer = {
        "class_name": "TensorFlowOpLayer",
        "config": {"name": "l", "node_def": node, "constants": {"0": canary.written}},
    }
    return write_h5(
        canary, functional({**layer, "inbound_nodes": [["_CONSTANT_VALUE", -1, "x", {}]]}, old=True)
    )


@hostile("keras-h5", "config", "custom-objects", "a file that brings the names of its custom objects")
def _(canary: Canary) -> Path:
    config = sequential(
        {"class_name": "system", "config": {"name": "l", "command": canary.shell}, "module": "os"}, old=True
    )
    return write_h5(canary, config | {"custom_objects": {"system": "os.system"}})


@hostile("keras-h5", "config", "compile-loss", "bytecode as the loss of the compilation")
def _(canary: Canary) -> Path:
    code = code_of(canary)
    config = sequential({"class_name": "Dense", "config": DENSE}, old=True)
    training = json.dumps(
        {"loss": code, "metrics": [code], "optimizer_config": {"class_name": "Adam", "config": {}}}
    )
    return write_h5(canary, config, {"d": {"d/kernel:0": np.eye(16, dtype="f4")}}, training_config=training)


@hostile("keras", "config", "compile-loss", "bytecode as the loss of the compilation")
def _(canary: Canary) -> Path:
    loss = new_lambda(canary)["config"]["function"]
    config = sequential(keras_layer("Activation", {"name": "a", "activation": "relu"}))
    return write_keras(
        canary, config | {"compile_config": {"optimizer": "adam", "loss": loss, "metrics": [loss]}}
    )


@hostile("keras", "config", "build-config", "a build configuration with bytecode in it")
def _(canary: Canary) -> Path:
    layer = keras_layer(
        "Dense", DENSE, build_config={"input_shape": new_lambda(canary)["config"]["function"]}
    )
    return write_keras(canary, sequential(layer))


@hostile("keras", "config", "script-in-names", "names that are HTML and terminal escapes")
def _(canary: Canary) -> Path:
    name = "\x1b]0;owned\x07\x1b[31m\u202e<script>document.title='executed'</script>"
    return write_keras(
        canary,
        sequential(keras_layer("Activation", {"name": name, "activation": "relu"}) | {"class_name": name}),
    )


for _form, _write in (("keras", write_keras), ("keras-h5", write_h5)):

    @hostile(_form, "json", "deep", "100,000 lists in each other")
    def _(canary: Canary, write: Any = _write) -> Path:
        return (
            write(canary, "[" * 100_000 + "]" * 100_000)
            if write is write_keras
            else write_h5_text(canary, 30_000)
        )

    for _kind, _value in {
        "list": [],
        "number": 7,
        "null": None,
        "config-list": {"class_name": "Sequential", "config": [1]},
        "class-number": {"class_name": 5, "config": {"layers": [None, 3, {"class_name": None}]}},
        "layers-text": {"class_name": "Sequential", "config": {"layers": "abc"}},
        "huge-int": {
            "class_name": "Sequential",
            "config": {"layers": [INPUT, keras_layer("Dense", DENSE | {"units": 1 << 70})]},
        },
    }.items():

        @hostile(_form, "json", f"odd-{_kind}", "JSON that is no configuration")
        def _(canary: Canary, write: Any = _write, value: Any = _value) -> Path:
            return write(canary, value)

    @hostile(_form, "json", "huge-dense", "a layer of 2^20 by 2^20 weights")
    def _(canary: Canary, write: Any = _write) -> Path:
        big = keras_layer("Dense", {"name": "d", "units": 1 << 20})
        return write(
            canary,
            {
                "module": "keras",
                "class_name": "Sequential",
                "config": {
                    "name": "s",
                    "layers": [
                        {
                            **INPUT,
                            "config": {"batch_shape": [None, 1 << 20], "dtype": "float32", "name": "x"},
                        },
                        big,
                    ],
                },
            },
        )


def write_h5_text(canary: Canary, depth: int) -> Path:
    return write_h5(canary, "[" * depth + "]" * depth)
