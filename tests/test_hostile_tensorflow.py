"""Files that ran code or reached other files when they were prepared: each with a canary that must not be
touched.
"""

from __future__ import annotations

import base64
import json
import marshal
import os
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from evaluation.nets.tf_models import QUIET, needs_tensorflow
from mnnprep.wire.protobuf import delimited

h5py = pytest.importorskip("h5py")

LOAD = """
import json, sys
import numpy
from mnnprep.model.messages import Source, InputSpecs
from mnnprep.errors import RefusedError
from mnnprep.formats.tensorflow.load import load
answers = {}
for name, (kind, path, outputs, trust) in json.loads(sys.argv[1]).items():
    try:
        loaded = load(Source(kind=kind, path=path, outputs=tuple(outputs), trust=trust), InputSpecs())
        ones = {s.name: [e if isinstance(e, int) else 2 for e in s.shape] for s in loaded.inputs}
        loaded.call({s.name: numpy.ones(ones[s.name], s.dtype) for s in loaded.inputs})
        answers[name] = "ran"
    except RefusedError as error:
        answers[name] = f"{error.what}: {error.seen}"
    except Exception as error:
        answers[name] = f"failed: {type(error).__name__}: {error}"
open("answers.json", "w").write(json.dumps(answers))
"""


def loaded(jobs: dict[str, list[object]], directory: Path) -> dict[str, str]:
    """What becomes of sources that are loaded and called as a worker does it, in one process."""
    done = subprocess.run(
        [sys.executable, "-c", LOAD, json.dumps(jobs)],
        env=os.environ | QUIET,
        cwd=directory,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    answers: dict[str, str] = json.loads((directory / "answers.json").read_text())
    return answers


def lambda_code(canary: Path) -> list[object]:
    def run(x: Any) -> Any:
        open("CANARY", "w").close()
        return x

    code = run.__code__.replace(
        co_consts=tuple(str(canary) if c == "CANARY" else c for c in run.__code__.co_consts)
    )
    return [base64.b64encode(marshal.dumps(code)).decode(), None, None]


def sequential(*layers: dict[str, Any]) -> dict[str, Any]:
    first = {
        "class_name": "InputLayer",
        "config": {"batch_input_shape": [None, 3], "dtype": "float32", "name": "x", "sparse": False},
    }
    return {"class_name": "Sequential", "config": {"name": "net", "layers": [first, *layers]}}


def functional(layer: dict[str, Any], name: str) -> dict[str, Any]:
    first = {
        "class_name": "InputLayer",
        "name": "x",
        "inbound_nodes": [],
        "config": {"batch_input_shape": [None, 3], "dtype": "float32", "name": "x", "sparse": False},
    }
    second = {**layer, "name": name, "inbound_nodes": [[["x", 0, 0, {}]]]}
    config = {
        "name": "net",
        "layers": [first, second],
        "input_layers": [["x", 0, 0]],
        "output_layers": [[name, 0, 0]],
    }
    return {"class_name": "Functional", "config": config}


def written(path: Path, config: dict[str, Any], version: str) -> Path:
    """A Keras file with *config*, of the kind that the path's suffix says."""
    weights = path.with_suffix(".h5")
    with h5py.File(weights, "w") as book:
        book.attrs["model_config"] = json.dumps(config)
        book.attrs["keras_version"] = version
        group = book.create_group("model_weights")
        group.attrs["layer_names"] = []
        group.attrs["keras_version"] = version
        group.attrs["backend"] = "tensorflow"
        book.create_group("layers")
    if path.suffix == ".keras":
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("config.json", json.dumps(config))
            archive.writestr("metadata.json", json.dumps({"keras_version": version}))
            archive.write(weights, "model.weights.h5")
    return path


def nameless(canary: Path) -> dict[str, Any]:
    return {
        "class_name": "Lambda",
        "config": {"function": lambda_code(canary), "function_type": "lambda", "arguments": {}},
    }


SYSTEM = {"class_name": "function", "module": "os", "config": "system", "registered_name": "system"}
NAMED = {
    "class_name": "Lambda",
    "module": "keras.layers",
    "registered_name": None,
    "config": {"function": SYSTEM},
}
WRITE = {"class_name": "TFOpLambda", "config": {"name": "w", "function": "io.write_file", "dtype": "float32"}}
LIBRARY = {"class_name": "TFOpLambda", "config": {"name": "w", "function": "load_op_library"}}

KERAS: dict[str, tuple[str, str, Callable[[Path], dict[str, Any]]]] = {
    "a nameless Lambda in h5": (".h5", "2.15.0", lambda c: sequential(nameless(c))),
    "a nameless Lambda in a functional h5": (".h5", "2.15.0", lambda c: functional(nameless(c), "l")),
    "a nameless Lambda that names os.system": (".keras", "3.0.0", lambda c: sequential(NAMED)),
    "write_file as an operation": (".h5", "2.15.0", lambda c: functional(WRITE, "w")),
    "a library as an operation": (".h5", "2.15.0", lambda c: sequential(LIBRARY)),
}


@needs_tensorflow
def test_what_a_keras_file_names_is_not_called(tmp_path: Path) -> None:
    canary, touched = tmp_path / "canary", tmp_path / "touched"
    trusted = written(tmp_path / "trusted.h5", sequential(nameless(touched)), "2.15.0")
    jobs: dict[str, list[object]] = {}
    for number, (name, (suffix, version, make)) in enumerate(KERAS.items()):
        kind = "keras" if suffix == ".keras" else "keras-h5"
        path = written(tmp_path / f"{number}{suffix}", make(canary), version)
        jobs[name] = [kind, str(path), [], False]
    answers = loaded({**jobs, "trusted": ["keras-h5", str(trusted), [], True]}, tmp_path)
    for name in jobs:
        assert answers[name].startswith("loading this model would call code"), (name, answers[name])
    assert not canary.exists()
    assert touched.exists(), answers["trusted"]


def graph(path: Path, *nodes: bytes) -> Path:
    path.write_bytes(b"".join(delimited(1, node) for node in nodes))
    return path


def attribute(name: str, value: bytes) -> bytes:
    return delimited(5, delimited(1, name.encode()) + delimited(2, value))


def node(name: str, op: str, *inputs: str, attributes: bytes = b"") -> bytes:
    return (
        delimited(1, name.encode())
        + delimited(2, op.encode())
        + b"".join(delimited(3, i.encode()) for i in inputs)
        + attributes
    )


FLOAT, STRING = b"\x30\x01", b"\x30\x07"  # AttrValue.type = 6: DT_FLOAT, DT_STRING


def text(name: str, value: str) -> bytes:
    tensor = (
        b"\x08\x07" + delimited(2, b"") + delimited(8, value.encode())
    )  # TensorProto: dtype, tensor_shape, string_val
    return node(
        name, "Const", attributes=attribute("dtype", STRING) + attribute("value", delimited(8, tensor))
    )


def writing(path: Path, canary: Path, *, control: str) -> Path:
    """A graph with a WriteFile, which its output ``y`` waits for or not."""
    size = delimited(7, delimited(2, b"\x08\x02"))  # AttrValue.shape of [2]
    x = node("x", "Placeholder", attributes=attribute("dtype", FLOAT) + attribute("shape", size))
    write = node("w", "WriteFile", "name", "content")
    y = node("y", "Relu", "x", *([control] if control else []), attributes=attribute("T", FLOAT))
    return graph(path, x, text("name", str(canary)), text("content", "x"), write, y)


@needs_tensorflow
def test_operators_of_a_graph_write_no_file(tmp_path: Path) -> None:
    canary, touched = tmp_path / "canary", tmp_path / "touched"
    jobs: dict[str, list[object]] = {
        "on the way": ["frozen-graph", str(writing(tmp_path / "w.pb", canary, control="^w")), ["y"], False],
        "beside": ["frozen-graph", str(writing(tmp_path / "b.pb", canary, control="")), ["y"], False],
        "trusted": ["frozen-graph", str(writing(tmp_path / "t.pb", touched, control="^w")), ["y"], True],
    }
    answers = loaded(jobs, tmp_path)
    assert answers["on the way"].endswith("WriteFile w")
    assert answers["beside"] == answers["trusted"] == "ran"
    assert not canary.exists()
    assert touched.exists()
