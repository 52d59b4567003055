"""Which Keras configurations would run code: told from the configuration alone, however it is spelled."""

from __future__ import annotations

import base64
import inspect
import json
import marshal
import os
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import pytest

from evaluation.nets.tf_models import QUIET, needs_tensorflow
from mnnprep.commands.inspect import inspect_file
from mnnprep.errors import RefusedError
from mnnprep.formats.tensorflow import keras_table as table
from mnnprep.formats.tensorflow.keras_config import parsed, read_keras
from mnnprep.formats.tensorflow.keras_judge import foreign_objects, without_compiled
from mnnprep.formats.tensorflow.symbols import is_pure

CODE = [base64.b64encode(marshal.dumps(compile("open('canary', 'w')", "x", "exec"))).decode(), None, None]


def layer(kind: object, **config: object) -> dict[str, Any]:
    return {"class_name": kind, "config": config}


def model(*layers: object, kind: str = "Sequential") -> dict[str, Any]:
    return {"class_name": kind, "config": {"name": "net", "layers": [layer("InputLayer", name="x"), *layers]}}


DENSE = layer(
    "Dense", name="d", units=3, activation="relu", kernel_initializer=layer("GlorotUniform", seed=None)
)
OS_SYSTEM = {"module": "os", "class_name": "function", "config": "system", "registered_name": "system"}
NODE = b"\x0a\x01n\x12\x09WriteFile"

HOSTILE: dict[str, dict[str, Any]] = {
    "a Lambda without a name": model(layer("Lambda", function=CODE, function_type="lambda")),
    "a Lambda without a name in a functional model": model(layer("Lambda", function=CODE), kind="Functional"),
    "a Lambda whose configuration is no object": model({"class_name": "Lambda", "config": CODE}),
    "a Lambda without a configuration": model({"class_name": "Lambda"}),
    "a Lambda that names a function": model(layer("Lambda", function=OS_SYSTEM)),
    "a Lambda by its module": model(
        {**layer("Lambda", function=CODE), "module": "keras.layers", "registered_name": None}
    ),
    "a Lambda in a wrapper": model(layer("TimeDistributed", name="t", layer=layer("Lambda", function=CODE))),
    "a Lambda in a model in a model": model(model(layer("Lambda", function=CODE))),
    "a Lambda in the arguments of a node": model(
        {**DENSE, "inbound_nodes": [{"args": [layer("Lambda", function=CODE)]}]}
    ),
    "a Lambda as an activation": model(layer("Dense", name="d", activation=layer("Lambda", function=CODE))),
    "a Lambda behind a value": model(
        layer("Dense", units={"class_name": "__tuple__", "items": [layer("Lambda", function=CODE)]})
    ),
    "the form of a lambda": model(layer("Dense", activation=layer("__lambda__", value=CODE[0]))),
    "a function of another module": model(layer("Dense", activation=OS_SYSTEM)),
    "a function of builtins": model(
        layer(
            "Dense",
            activation={
                "module": "builtins",
                "class_name": "function",
                "config": "exec",
                "registered_name": "exec",
            },
        )
    ),
    "a function under another name": model(
        layer(
            "Dense",
            activation={
                "module": "builtins",
                "class_name": "function",
                "config": "relu",
                "registered_name": "exec",
            },
        )
    ),
    "a function of a module with an activation's name": model(
        layer(
            "Dense",
            activation={
                "module": "evil",
                "class_name": "function",
                "config": "relu",
                "registered_name": "relu",
            },
        )
    ),
    "an activation by a path": model(layer("Dense", activation="os.system")),
    "an activation as bytecode": model(layer("Dense", activation=CODE)),
    "a recurrent activation": model(layer("LSTM", recurrent_activation="eval")),
    "an initializer by a name": model(layer("Dense", kernel_initializer="load_op_library")),
    "an initializer by a class": model(
        layer("Dense", kernel_initializer={**layer("Popen"), "module": "subprocess"})
    ),
    "a class with a Keras name from elsewhere": model({**layer("Dense", units=3), "module": "evil.layers"}),
    "a class with a Keras name from a test": model(
        {**layer("Dense", units=3), "module": "keras.src.layers.x_test"}
    ),
    "a module in another part of Keras": model(
        {**layer("Dense", units=3), "module": "keras.src.utils.file_utils"}
    ),
    "a class registered by its author": model(
        {**layer("Dense", units=3), "module": None, "registered_name": "My>Dense"}
    ),
    "a class of the author": model(layer("My>Net", units=3)),
    "a cell of the author": model(layer("RNN", cell=layer("MyCell", units=3))),
    "io.write_file": model(layer("TFOpLambda", name="w", function="io.write_file")),
    "load_op_library": model(layer("TFOpLambda", function="load_op_library")),
    "a raw operator": model(layer("TFOpLambda", function="raw_ops.WriteFile")),
    "py_function by its old name": model(layer("SlicingOpLambda", function="compat.v1.py_func")),
    "an operation without a name": model(layer("TFOpLambda", name="w")),
    "an operation whose name is a list": model(layer("TFOpLambda", function=["math.add"])),
    "a method by its name": model(layer("ClassMethod", cls_symbol="io.gfile.GFile", method_name="write")),
    "an attribute by its name": model(layer("InstanceMethod", attr_name="__reduce__")),
    "a node of its own": model(layer("TensorFlowOpLayer", node_def={"name": "n", "op": "WriteFile"})),
    "a node of its own as bytes": model(layer("TensorFlowOpLayer", node_def=NODE.decode())),
    "a node that is none": model(layer("TensorFlowOpLayer", node_def=3)),
    "a function around a cell": model(layer("ResidualWrapper", residual_function=CODE, cell=DENSE)),
    "a filter around a cell": model(layer("DropoutWrapper", dropout_state_filter_visitor=CODE, cell=DENSE)),
    "a SavedModel from a path": model(layer("TFSMLayer", filepath="/evil")),
    "a module of PyTorch": model(layer("TorchModuleWrapper", module="gASV")),
    "functions of JAX": model(layer("JaxLayer", call_fn=CODE)),
    "functions of Flax": model(layer("FlaxLayer", module=CODE)),
    "a vocabulary from a file": model(layer("StringLookup", vocabulary="/etc/passwd")),
    "a vocabulary from a file for numbers": model(
        layer("IntegerLookup", vocabulary=layer("__bytes__", value="/etc/passwd"))
    ),
    "a vocabulary from a file for text": model(
        layer("TextVectorization", vocabulary="/etc/passwd", standardize=None)
    ),
    "a function for text": model(layer("TextVectorization", standardize=OS_SYSTEM)),
    "a file among feature columns": model(
        layer("DenseFeatures", feature_columns=[layer("VocabularyFileCategoricalColumn")])
    ),
    "an operation that calls": model(
        {**layer("Map", f=OS_SYSTEM), "module": "keras.src.ops.core", "registered_name": "Map"}
    ),
    "a type by its name": model(
        layer("InputLayer", type_spec={"class_name": "TypeSpec", "type_spec": "evil", "serialized": []})
    ),
    "an optimizer outside of what was compiled": model(layer("SGD", learning_rate=1)),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_what_would_run_code_is_told_from_the_configuration(name: str) -> None:
    assert foreign_objects(HOSTILE[name]), name
    assert foreign_objects([HOSTILE[name]])
    assert foreign_objects({"nested": {"any": [HOSTILE[name]["config"]]}})


HARMLESS: dict[str, dict[str, Any]] = {
    "layers": model(
        DENSE, layer("Conv2D", name="c", kernel_regularizer=layer("L1L2", l1=0.1), bias_constraint="max_norm")
    ),
    "an old model, a list of layers": {
        "class_name": "Sequential",
        "config": [DENSE, layer("Activation", activation="LeakyReLU")],
    },
    "a layer called Lambda": model(layer("Dense", name="Lambda", activation=None)),
    "cells": model(
        layer(
            "Bidirectional",
            layer={**layer("LSTM", units=3), "module": "keras.layers", "registered_name": None},
        )
    ),
    "operations": model(
        {**layer("GetItem", name="g"), "module": "keras.src.ops.numpy", "registered_name": "GetItem"}
    ),
    "symbols": model(layer("TFOpLambda", name="tf.math.add", function="math.add")),
    "old symbols": model(layer("SlicingOpLambda", name="s", function="compat.v1.transpose")),
    "a node": model(layer("TensorFlowOpLayer", node_def={"op": "AddV2"})),
    "a node as bytes": model(layer("TensorFlowOpLayer", node_def="\n\x01n\x12\x05AddV2")),
    "a policy": model(
        layer(
            "Dense",
            dtype={**layer("DTypePolicy", name="float32"), "module": "keras", "registered_name": None},
        )
    ),
    "a function": model(
        layer("Dense", activation={"class_name": "function", "config": "relu", "module": "builtins"})
    ),
    "a vocabulary": model(layer("IntegerLookup", vocabulary=[1, 2, 3], idf_weights=None)),
    "what was compiled": model(DENSE) | {"compile_config": {"optimizer": layer("SGD"), "loss": OS_SYSTEM}},
    "a layer of an application": model(
        {
            **layer("CustomScaleLayer"),
            "module": "keras.src.applications.inception_resnet_v2",
            "registered_name": "Custom>CustomScaleLayer",
        }
    ),
}


@pytest.mark.parametrize("name", HARMLESS)
def test_what_computes_alone_is_taken(name: str) -> None:
    assert foreign_objects(HARMLESS[name]) == []


def test_the_optimizers_of_inner_models_are_taken_out() -> None:
    inner = model(DENSE) | {"compile_config": {"optimizer": layer("SGD")}}
    whole = model(inner) | {"compile_config": {"loss": "mse"}}
    assert "compile_config" not in json.dumps(without_compiled(whole))
    assert without_compiled(inner) is inner  # loading leaves that of the outermost aside


@pytest.mark.parametrize(
    "config",
    [
        {"class_name": ["Lambda"], "config": {}},
        {"class_name": None},
        {"class_name": {"class_name": "__bytes__", "value": "Lambda"}},
    ],
)
def test_a_class_that_is_no_text_is_damage(config: dict[str, Any]) -> None:
    with pytest.raises(RefusedError, match="damaged"):
        foreign_objects(model(config))


def test_a_deep_configuration_is_refused() -> None:
    config: dict[str, Any] = {}
    for _ in range(100_000):
        config = {"a": [config]}
    with pytest.raises(RefusedError, match="damaged"):
        foreign_objects(config)
    while config:  # so that it is not freed by recursion
        config = config.pop("a").pop()


DAMAGED = {
    "no JSON": b"{",
    "a list": b"[1]",
    "a number": b"3",
    "no UTF-8": b'{"a": "\xff\xfe"}',
    "too deep": b'{"a":' * 100_000,
    "text": b'"x"',
    "nothing": b"",
}


@pytest.mark.parametrize("name", DAMAGED)
def test_damaged_json_is_refused_as_that(name: str) -> None:
    with pytest.raises(RefusedError, match="damaged"):
        parsed(DAMAGED[name], "config.json")


def keras_archive(path: Path, config: object, **members: bytes) -> Path:
    h5py = pytest.importorskip("h5py")
    weights = path.with_suffix(".part")
    with h5py.File(weights, "w") as book:
        book.create_group("layers")
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("config.json", json.dumps(config))
        archive.writestr("metadata.json", json.dumps({"keras_version": "3.0.0"}))
        archive.writestr("model.weights.h5", weights.read_bytes())
        for name, content in members.items():
            archive.writestr(name, content)
    return path


def h5_model(path: Path, config: object) -> Path:
    h5py = pytest.importorskip("h5py")
    with h5py.File(path, "w") as book:
        book.attrs["model_config"] = config if isinstance(config, bytes | int) else json.dumps(config)
        book.create_group("model_weights")
    return path


def test_inspect_names_what_would_run(tmp_path: Path) -> None:
    config = HOSTILE["a Lambda without a name"]
    for path in (keras_archive(tmp_path / "a.keras", config), h5_model(tmp_path / "a.h5", config)):
        (warning,) = inspect_file(path).warnings
        assert "Lambda holds a Python function" in warning
        assert "--trust" in warning


ODD: dict[str, object] = {
    "a list for the layers' configuration": {
        "class_name": "Sequential",
        "config": {"layers": [{"class_name": "InputLayer", "config": [1]}]},
    },
    "numbers for layers": {"class_name": "Sequential", "config": {"layers": [1, "x", None]}},
    "a dictionary for layers": {
        "class_name": "Sequential",
        "config": {"layers": {"a": 1}, "output_layers": 3},
    },
    "a list for the configuration": {"class_name": "Sequential", "config": [1]},
    "no configuration": {
        "class_name": "Sequential",
        "config": None,
        "build_config": [1],
        "compile_config": 3,
    },
    "odd ports": model(layer("InputLayer", name=3, dtype=[1], batch_shape={"a": 1})),
    "odd shapes": {"class_name": "Model", "config": {}, "build_config": {"input_shape": ["a", None, 2.5]}},
}


@pytest.mark.parametrize("name", ODD)
def test_an_odd_configuration_is_inspected_or_refused(tmp_path: Path, name: str) -> None:
    for path in (keras_archive(tmp_path / "a.keras", ODD[name]), h5_model(tmp_path / "a.h5", ODD[name])):
        assert inspect_file(path).framework == "tensorflow"


@pytest.mark.parametrize("content", [b"\xff\xfe{", b"[", 7])
def test_an_odd_attribute_is_damage(tmp_path: Path, content: bytes | int) -> None:
    with pytest.raises(RefusedError, match="damaged"):
        read_keras(h5_model(tmp_path / "a.h5", content), "keras-h5")


def test_an_archive_of_two_configurations_is_refused(tmp_path: Path) -> None:
    path = keras_archive(tmp_path / "a.keras", model(DENSE))
    with pytest.warns(UserWarning, match="Duplicate"), zipfile.ZipFile(path, "a") as archive:
        archive.writestr("config.json", json.dumps(HOSTILE["a Lambda without a name"]))
    with pytest.raises(RefusedError, match="not as its directory says"):
        read_keras(path, "keras")


@needs_tensorflow
def test_the_lists_are_those_of_the_installed_packages() -> None:
    """A layer that a new version brings is neither allowed nor refused until somebody has looked at it."""
    done = subprocess.run(
        [sys.executable, "-c", inspect.getsource(_installed) + "\n_installed()"],
        env=os.environ | QUIET,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    found = json.loads(done.stdout.splitlines()[-1])
    known = table.MODELS | table.LAYERS | table.NO_LAYERS | table.REFUSED_LAYERS.keys()
    assert set(found["layers"]) == known
    assert set(found["operations"]) == table.OPERATIONS | table.REFUSED_OPERATIONS
    assert set(found["activations"]) <= table.ACTIVATIONS
    assert set(found["initializers"]) <= table.INITIALIZERS
    assert all(is_pure(name) for name in ("math.add", "__operators__.getitem", "compat.v1.pad"))
    assert found["unresolved"] == []


def _installed() -> None:
    import importlib
    import inspect
    import json
    import pkgutil

    import keras
    import tf_keras
    from keras.src import ops
    from keras.src.layers.layer import Layer
    from keras.src.ops.operation import Operation
    from tensorflow.python.util.tf_export import get_symbol_from_name
    from tf_keras.src.layers import serialization

    from mnnprep.formats.tensorflow.symbols import OLD, SYMBOLS

    for module in pkgutil.iter_modules(ops.__path__):
        if not module.name.endswith("_test"):
            importlib.import_module(f"keras.src.ops.{module.name}")

    def kinds(base: type) -> set[type]:
        return {base}.union(*map(kinds, base.__subclasses__()))

    serialization.populate_deserializable_objects()
    layers = {n for n, v in vars(keras.layers).items() if inspect.isclass(v)} | set(
        serialization.LOCAL.ALL_OBJECTS
    )
    found = [
        k for k in kinds(Operation) if not issubclass(k, Layer) and k.__module__.startswith("keras.src.ops.")
    ]
    operations = {k.__name__ for k in found} - {"Operation"}
    initializers = set(keras.src.initializers.ALL_OBJECTS_DICT) - {"Initializer", "initializer"}
    functions = {n for n, v in vars(tf_keras.activations).items() if inspect.isfunction(v)} - {
        "get",
        "serialize",
        "deserialize",
    }
    activations = functions | set(keras.src.activations.ALL_OBJECTS_DICT)
    unresolved = [s for s in SYMBOLS if not (get_symbol_from_name(s) or get_symbol_from_name(OLD + s))]
    answer = {
        "layers": layers,
        "operations": operations,
        "activations": activations,
        "initializers": initializers,
    }
    answer["unresolved"] = set(unresolved)
    print(json.dumps({key: sorted(value) for key, value in answer.items()}))
