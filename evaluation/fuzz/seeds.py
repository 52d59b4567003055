"""Small valid files of every format that mnnprep reads, for :mod:`evaluation.fuzz` to damage.

``python -m evaluation.fuzz.seeds DIR GROUP...`` writes them once, each as a directory with its files and
``entry``, which names the one to read.  The group ``light`` needs no framework; ``torch`` and ``tensorflow``
need theirs.
"""

from __future__ import annotations

import io
import json
import struct
import subprocess
import sys
import zipfile
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from evaluation.places import DATA, environment

GROUPS = ("light", "torch", "tensorflow")
Files = dict[str, bytes]


@dataclass(frozen=True)
class Seed:
    """A source: its files by name, the one to read first, and the format they are of."""

    name: str
    kind: str
    files: Files


def load(root: Path, groups: tuple[str, ...] = GROUPS) -> list[Seed]:
    """The seeds of *groups*, made in a process of their own where *root* has them not."""
    for group in groups:
        if not (root / group / "done").exists():
            quiet = {"TF_CPP_MIN_LOG_LEVEL": "3", "CUDA_VISIBLE_DEVICES": "", "KERAS_BACKEND": "tensorflow"}
            subprocess.run(
                [sys.executable, "-W", "ignore", "-m", "evaluation.fuzz.seeds", str(root), group],
                env=environment(**quiet),
                check=True,
            )
    places = sorted(place for group in groups for place in (root / group).iterdir() if place.is_dir())
    return [_read(place) for place in places]


def _read(place: Path) -> Seed:
    first = (place / "entry").read_text()
    names = [
        str(path.relative_to(place))
        for path in sorted(place.rglob("*"))
        if path.is_file() and path.name != "entry"
    ]
    names.sort(key=lambda name: name != first)
    kind = place.name.partition("-")[0]
    return Seed(place.name, kind, {name: (place / name).read_bytes() for name in names})


def onnx_models() -> dict[str, Files]:
    from onnx import TensorProto, helper, numpy_helper

    random = np.random.default_rng(0)

    def tensor(name: str, *shape: int) -> Any:
        return numpy_helper.from_array(random.standard_normal(shape).astype(np.float32), name)

    def port(name: str, *shape: Any) -> Any:
        return helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)

    node = helper.make_node
    opsets = [helper.make_opsetid("", 13), helper.make_opsetid("own", 1)]

    def model(nodes: list[Any], weights: list[Any], functions: tuple[Any, ...] = ()) -> bytes:
        graph = helper.make_graph(
            nodes, "net", [port("x", "n", 3, 8, 8)], [port("y", "n", None, None, None)], weights
        )
        made = helper.make_model(graph, opset_imports=opsets, functions=functions, ir_version=8)
        return bytes(made.SerializeToString())

    conv = node("Conv", ["x", "w"], ["c"], name="conv", kernel_shape=[3, 3], pads=[1, 1, 1, 1])
    sizes = numpy_helper.from_array(np.array([1, 1, 2, 2], np.float32), "sizes")
    plain = model(
        [
            conv,
            node("BatchNormalization", ["c", "s", "b", "m", "v"], ["n"]),
            node("Relu", ["n"], ["r"]),
            node("MaxPool", ["r"], ["p"], kernel_shape=[2, 2], strides=[2, 2]),
            node("Resize", ["p", "", "sizes"], ["z"], mode="linear"),
            node("Softmax", ["z"], ["f"], axis=1),
            node("Transpose", ["f"], ["y"], perm=[0, 2, 3, 1]),
        ],
        [tensor("w", 4, 3, 3, 3), *(tensor(name, 4) for name in "sbmv"), sizes],
    )
    step = node("Constant", [], ["k"], value=numpy_helper.from_array(np.array(3, np.int64)))
    body = helper.make_graph(
        [node("Mul", ["h", "h"], ["h2"])],
        "body",
        [
            helper.make_tensor_value_info("i", TensorProto.INT64, []),
            helper.make_tensor_value_info("c0", TensorProto.BOOL, []),
            port("h"),
        ],
        [helper.make_tensor_value_info("c0", TensorProto.BOOL, []), port("h2")],
    )
    yes = numpy_helper.from_array(np.array(True), "yes")
    branches = {
        f"{name}_branch": helper.make_graph([node(op, ["l"], [name])], name, [], [port(name)])
        for name, op in (("then", "Abs"), ("else", "Neg"))
    }
    nested = model(
        [step, node("Loop", ["k", "yes", "x"], ["l"], body=body), node("If", ["yes"], ["y"], **branches)],
        [yes],
    )
    gelu = helper.make_function(
        "own", "Gelu", ["a"], ["b"], [node("Erf", ["a"], ["e"]), node("Mul", ["a", "e"], ["b"])], opsets[:1]
    )
    called = model(
        [node("Gelu", ["x"], ["g"], domain="own"), node("Gather", ["g", "ids"], ["y"], axis=1)],
        [yes, _ids(numpy_helper)],
        (gelu,),
    )
    outside = TensorProto(
        name="w", data_type=TensorProto.FLOAT, dims=[4, 3, 3, 3], data_location=TensorProto.EXTERNAL
    )
    for key, value in (("location", "w.data"), ("offset", "0"), ("length", "432")):
        outside.external_data.add(key=key, value=value)
    external = model([conv, node("Identity", ["c"], ["y"])], [outside])
    recurrent = model(
        [
            node("Reshape", ["x", "to"], ["q"]),
            node("LSTM", ["q", "w", "r"], ["y", "", ""], hidden_size=4),
        ],
        [
            numpy_helper.from_array(np.array([-1, 1, 8], np.int64), "to"),
            tensor("w", 1, 16, 8),
            tensor("r", 1, 16, 4),
        ],
    )
    return {
        "onnx-plain": {"m.onnx": plain},
        "onnx-nested": {"m.onnx": nested},
        "onnx-functions": {"m.onnx": called},
        "onnx-external": {"m.onnx": external, "w.data": bytes(432)},
        "onnx-recurrent": {"m.onnx": recurrent},
    }


def _ids(numpy_helper: Any) -> Any:
    return numpy_helper.from_array(np.array([0, 2], np.int64), "ids")


def caffe_models() -> dict[str, Files]:
    from mnnprep.wire.protobuf import delimited, encoded

    prototxt = """name: "net"
input: "data"
input_shape { dim: 1 dim: 3 dim: 8 dim: 8 }
layer { name: "conv" type: "Convolution" bottom: "data" top: "conv" convolution_param { num_output: 4
  kernel_size: 3 pad: 1 } }
layer { name: "relu" type: "ReLU" bottom: "conv" top: "conv" }  # in place
layer { name: "pool" type: "Pooling" bottom: "conv" top: "pool" pooling_param { pool: MAX kernel_size: 2
  stride: 2 } }
layer { name: "fc" type: "InnerProduct" bottom: "pool" top: "fc" inner_product_param { num_output: 2 } }
layer { name: "prob" type: "Softmax" bottom: "fc" top: "prob" include { phase: TEST } }
"""

    def blob(*shape: int) -> bytes:
        dims = delimited(7, delimited(1, b"".join(encoded(size) for size in shape)))
        return delimited(7, dims + delimited(5, np.ones(shape, np.float32).tobytes()))

    def layer(name: bytes, kind: bytes, *blobs: bytes) -> bytes:
        return delimited(100, delimited(1, name) + delimited(2, kind) + b"".join(blobs))

    weights = (
        delimited(1, b"net")
        + layer(b"conv", b"Convolution", blob(4, 3, 3, 3), blob(4))
        + layer(b"fc", b"InnerProduct", blob(2, 64), blob(2))
    )
    pair = {"net.prototxt": prototxt.encode(), "net.caffemodel": weights}
    return {"caffe-text": pair, "caffe-weights": dict(reversed(pair.items()))}


def graph_models() -> dict[str, Files]:
    from mnnprep.wire.protobuf import delimited

    def attribute(key: bytes, value: bytes) -> bytes:
        return delimited(5, delimited(1, key) + delimited(2, value))

    def node(name: bytes, op: bytes, *inputs: bytes, attributes: bytes = b"") -> bytes:
        return delimited(
            1, delimited(1, name) + delimited(2, op) + b"".join(delimited(3, i) for i in inputs) + attributes
        )

    kind = attribute(b"dtype", b"\x30\x01")
    shape = attribute(b"shape", delimited(7, delimited(2, b"\x08\x01") + delimited(2, b"\x08\x03")))
    value = attribute(
        b"value",
        delimited(8, b"\x08\x01" + delimited(2, delimited(2, b"\x08\x03")) + delimited(4, bytes(12))),
    )
    graph = (
        node(b"x", b"Placeholder", attributes=kind + shape)
        + node(b"w", b"Const", attributes=kind + value)
        + node(b"y", b"Add", b"x", b"w")
    )

    def port(name: bytes) -> bytes:
        return delimited(1, name) + delimited(
            2, delimited(1, name + b":0") + b"\x10\x01" + delimited(3, delimited(2, b"\x08\x03"))
        )

    meta = (
        delimited(1, delimited(4, b"serve"))
        + delimited(2, graph)
        + delimited(3, delimited(1, b"save/Const:0"))
    )
    meta += delimited(
        5,
        delimited(1, b"serving_default") + delimited(2, delimited(1, port(b"x")) + delimited(2, port(b"y"))),
    )
    index = (DATA / "tensorflow" / "variables.index").read_bytes()
    return {
        "graph-frozen": {"g.pb": graph},
        "graph-meta": {"m.ckpt.meta": meta},
        "graph-saved": {
            "saved_model.pb": b"\x08\x01" + delimited(2, meta),
            "variables/variables.index": index,
        },
    }


def keras_models() -> dict[str, Files]:
    import h5py

    def layer(kind: str, name: str, **config: Any) -> dict[str, Any]:
        nodes = (
            []
            if kind == "InputLayer"
            else [
                {
                    "args": [{"class_name": "__keras_tensor__", "config": {"keras_history": ["x", 0, 0]}}],
                    "kwargs": {},
                }
            ]
        )
        return {
            "module": "keras.layers",
            "class_name": kind,
            "config": {"name": name, **config},
            "name": name,
            "inbound_nodes": nodes,
        }

    layers = [
        layer("InputLayer", "x", batch_shape=[None, 8], dtype="float32"),
        layer(
            "Dense",
            "dense",
            units=4,
            activation="relu",
            kernel_initializer={"class_name": "GlorotUniform", "config": {"seed": None}},
        ),
    ]
    config = {
        "name": "net",
        "layers": layers,
        "input_layers": [["x", 0, 0]],
        "output_layers": [["dense", 0, 0]],
    }
    document = {
        "module": "keras.src.models.functional",
        "class_name": "Functional",
        "config": config,
        "registered_name": "Functional",
    }

    def weights(*, whole: bool) -> bytes:
        buffer = io.BytesIO()
        with h5py.File(buffer, "w") as file:
            group = file.create_group("model_weights" if whole else "layers")
            group.create_dataset("dense/kernel", data=np.ones((8, 4), np.float32))
            group.create_dataset("dense/bias", data=np.zeros(4, np.float32))
            if whole:
                group.attrs["layer_names"] = [b"dense"]
                file.attrs.update(
                    {"model_config": json.dumps(document), "keras_version": "3.5.0", "backend": "tensorflow"}
                )
        return buffer.getvalue()

    members = {
        "metadata.json": json.dumps({"keras_version": "3.5.0"}),
        "config.json": json.dumps(document),
        "model.weights.h5": weights(whole=False),
    }
    return {"keras-zip": {"m.keras": _zip(members)}, "keras-h5": {"m.h5": weights(whole=True)}}


def _zip(members: dict[str, Any]) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, content in members.items():
            archive.writestr(zipfile.ZipInfo(name), content)
    return buffer.getvalue()


def plain_files() -> dict[str, Files]:
    header = {
        "a.weight": {"dtype": "F32", "shape": [2, 3], "data_offsets": [0, 24]},
        "a.bias": {"dtype": "F16", "shape": [2], "data_offsets": [24, 28]},
    }
    encoded = json.dumps({"__metadata__": {"format": "pt"}, **header}).encode()
    safe = struct.pack("<Q", len(encoded)) + encoded + bytes(28)
    index = {"metadata": {"total_size": 28}, "weight_map": dict.fromkeys(header, "part-1.safetensors")}
    arrays, alone = io.BytesIO(), io.BytesIO()
    np.savez(arrays, x=np.ones((1, 3), np.float32), ids=np.arange(3))
    np.save(alone, np.ones((1, 3), np.float32))
    found: dict[str, Files] = {
        "safetensors-file": {"m.safetensors": safe},
        "shards-index": {
            "model.safetensors.index.json": json.dumps(index).encode(),
            "part-1.safetensors": safe,
        },
        "samples-npz": {"s.npz": arrays.getvalue()},
        "samples-npy": {"s.npy": alone.getvalue()},
    }
    for verdict in ("proven", "differs", "unproven"):
        found[f"bundle-{verdict}"] = {"manifest.json": (DATA / f"manifest-{verdict}.json").read_bytes()}
    for name in ("conv-trace", "if-script", "attention-script"):
        found[f"mnn-{name}"] = {"m.mnn": (DATA / "torch-fixtures" / f"{name}.mnn").read_bytes()}
        found[f"torch-{name}"] = {"m.pt": (DATA / "torch-fixtures" / f"{name}.pt").read_bytes()}
    return found


def light() -> dict[str, Files]:
    return onnx_models() | caffe_models() | graph_models() | keras_models() | plain_files()


def torch_files() -> dict[str, Files]:
    import torch

    net = torch.nn.Sequential(
        torch.nn.Conv2d(3, 4, 3), torch.nn.BatchNorm2d(4), torch.nn.Flatten(), torch.nn.Linear(144, 2)
    ).eval()
    state = OrderedDict(net.state_dict())

    def saved(value: Any, **options: Any) -> bytes:
        buffer = io.BytesIO()
        torch.save(value, buffer, **options)
        return buffer.getvalue()

    program = io.BytesIO()
    torch.export.save(torch.export.export(net, (torch.ones(1, 3, 8, 8),)), program)
    checkpoint = {"epoch": 3, "state_dict": state, "optimizer": {"lr": 0.1, "betas": (0.9, 0.99)}}
    return {
        "torch-state": {"m.pth": saved(state)},
        "torch-legacy": {"m.pth": saved(state, _use_new_zipfile_serialization=False)},
        "torch-checkpoint": {"m.ckpt": saved(checkpoint)},
        "torch-module": {"m.pt": saved(net)},
        "torch-program": {"m.pt2": program.getvalue()},
    }


def tensorflow_files() -> dict[str, Files]:
    import tempfile

    import keras
    import tensorflow as tf

    kernel = tf.constant(np.ones((3, 3, 3, 4), np.float32))

    @tf.function(input_signature=[tf.TensorSpec([1, 8, 8, 3], name="x")])
    def run(x: Any) -> Any:
        return tf.reduce_mean(tf.nn.relu(tf.nn.conv2d(x, kernel, 1, "SAME")), [1, 2])

    concrete = run.get_concrete_function()
    converter = tf.lite.TFLiteConverter.from_concrete_functions([concrete])
    smaller = tf.lite.TFLiteConverter.from_concrete_functions([concrete])
    smaller.optimizations = [tf.lite.Optimize.DEFAULT]
    found: dict[str, Files] = {
        "tflite-float": {"m.tflite": converter.convert()},
        "tflite-range": {"m.tflite": smaller.convert()},
    }
    found["graph-real"] = {"g.pb": concrete.graph.as_graph_def().SerializeToString()}
    model = keras.Sequential(
        [
            keras.Input((8, 8, 3)),
            keras.layers.Conv2D(4, 3, activation="relu"),
            keras.layers.Flatten(),
            keras.layers.Dense(2),
        ]
    )
    with tempfile.TemporaryDirectory() as scratch:
        for name in ("m.keras", "m.h5"):
            model.save(Path(scratch, name))
            found[f"keras-real{Path(name).suffix[1:]}"] = {name: Path(scratch, name).read_bytes()}
        module = tf.Module()
        module.run = run
        tf.saved_model.save(module, f"{scratch}/saved", signatures=run)
        names = ["saved_model.pb", "variables/variables.index", "variables/variables.data-00000-of-00001"]
        found["graph-module"] = {name: Path(scratch, "saved", name).read_bytes() for name in names}
    return found


MAKERS: dict[str, Callable[[], dict[str, Files]]] = {
    "light": light,
    "torch": torch_files,
    "tensorflow": tensorflow_files,
}


def main() -> None:
    root = Path(sys.argv[1])
    for group in sys.argv[2:]:
        for name, files in MAKERS[group]().items():
            for path, content in files.items():
                target = root / group / name / path
                target.parent.mkdir(parents=True, exist_ok=True)
                target.write_bytes(content)
            (root / group / name / "entry").write_text(next(iter(files)))
        (root / group / "done").touch()


if __name__ == "__main__":
    main()
