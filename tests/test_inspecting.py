"""inspect says what a file holds without loading it, and without importing anything heavy."""

from __future__ import annotations

import dataclasses
import json
import os
import subprocess
import sys
import zipfile
from pathlib import Path

import msgspec
import numpy as np
import pytest
from onnx import TensorProto, helper, numpy_helper

import mnnprep
from mnnprep.commands import inspect as inspecting
from mnnprep.commands.inspect import Inspection, read_file
from mnnprep.errors import RefusedError, UsageError
from mnnprep.formats.registry import kind_of


def document(path: Path) -> dict[str, object]:
    """The inspection as its JSON says it."""
    found: dict[str, object] = msgspec.json.decode(msgspec.json.encode(read_file(path)))
    return found


@pytest.fixture(scope="module")
def torch_files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch = pytest.importorskip("torch")
    directory = tmp_path_factory.mktemp("torch")
    net = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3), torch.nn.BatchNorm2d(4), torch.nn.Dropout())
    x = torch.zeros(2, 3, 8, 8)
    torch.save(net, directory / "training.pt")
    torch.jit.script(net).save(str(directory / "training-script.pt"))
    net.eval()
    torch.save(net, directory / "module.pt")
    torch.save(
        {"state_dict": net.state_dict(), "tied": [net[0].weight, net[0].weight]},
        directory / "checkpoint.ckpt",
    )
    torch.save(net.state_dict(), directory / "legacy.pth", _use_new_zipfile_serialization=False)
    torch.jit.trace(net, x).save(str(directory / "traced.pt"))
    batch = torch.export.Dim("batch", min=2, max=9)
    torch.export.save(torch.export.export(net, (x,), dynamic_shapes=({0: batch},)), directory / "program.pt2")
    torch.export.save(torch.export.export(net.train(), (x,)), directory / "training.pt2")
    return directory


PARAMETERS = 4 * 3 * 9 + 4 + 4 * 4 + 1  # with the buffers


def test_onnx(tmp_path: Path) -> None:
    inputs = [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 3])]
    outputs = [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", None])]
    flags = helper.make_tensor("train", TensorProto.BOOL, [], [True])
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["m"]),
        helper.make_node("Dropout", ["m", "", "train"], ["y"], name="drop"),
    ]
    graph = helper.make_graph(
        nodes, "g", inputs, outputs, [numpy_helper.from_array(np.ones((3, 5), np.float32), "w"), flags]
    )
    (tmp_path / "m.onnx").write_bytes(
        helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)]).SerializeToString()
    )
    found = read_file(tmp_path / "m.onnx")
    assert (found.kind, found.framework, found.opset, found.parameters, found.prepared) == (
        "onnx",
        "onnx",
        13,
        16,
        True,
    )
    assert found.size == (tmp_path / "m.onnx").stat().st_size
    assert found.ops == {"Dropout": 1, "MatMul": 1}
    assert found.signature.inputs[0].shape == ("n", 3)
    assert found.signature.outputs[0].shape == ("n", None)
    assert found.leftovers == ("Dropout drop: training_mode is true",)
    assert found.warnings == ("values of less than 32 bits are kept in int32_data: train",)
    assert msgspec.json.decode(msgspec.json.encode(found), type=Inspection).ops == found.ops


def test_onnx_without_its_data(tmp_path: Path) -> None:
    tensor = TensorProto(name="w", data_type=TensorProto.FLOAT, dims=[4], data_location=TensorProto.EXTERNAL)
    tensor.external_data.add(key="location", value="w.data")
    graph = helper.make_graph([], "g", [], [], [tensor])
    (tmp_path / "m.onnx").write_bytes(helper.make_model(graph).SerializeToString())
    found = read_file(tmp_path / "m.onnx")
    assert "w.data: missing" in found.warnings[0]
    assert found.parameters == 4


def test_an_onnx_file_beyond_protobuf_is_shown_with_a_warning(tmp_path: Path) -> None:
    size = (1 << 31) + 8
    raw = b"\x4a" + _varint(size)  # raw_data
    tensor = b"\x08" + _varint(size) + b"\x10\x02" + raw  # dims, uint8
    graph = b"\x2a" + _varint(len(tensor) + size) + tensor
    head = (
        b"\x08\x08\x42\x02\x10\x11\x3a" + _varint(len(graph) + size) + graph
    )  # ir_version 8, opset 17, graph
    with (tmp_path / "big.onnx").open("wb") as file:
        file.write(head)
        file.truncate(len(head) + size)  # sparse
    found = read_file(tmp_path / "big.onnx")
    assert found.parameters == size
    assert found.opset == 17
    assert "2 GiB" in found.warnings[0]
    assert "external data" in found.warnings[0]


def _varint(value: int) -> bytes:
    out = bytearray()
    while value >= 0x80:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*out, value])


def test_torchscript(torch_files: Path) -> None:
    found = read_file(torch_files / "traced.pt")
    assert (found.kind, found.parameters, found.leftovers, found.warnings) == (
        "torchscript",
        PARAMETERS,
        (),
        (),
    )
    assert found.ops["torch._convolution"] == 1
    assert found.ops["torch.batch_norm"] == 1
    assert [(spec.dtype, spec.shape) for spec in found.signature.inputs] == [("Tensor", None)]
    assert "Conv2d" in found.details["classes"]
    training = read_file(torch_files / "training-script.pt")
    assert "4 modules were saved in training mode" in training.leftovers[0]


def test_exported_program(torch_files: Path) -> None:
    found = read_file(torch_files / "program.pt2")
    assert (found.kind, found.parameters, found.leftovers, found.warnings) == (
        "exported-program",
        PARAMETERS,
        (),
        (),
    )
    (spec,) = found.signature.inputs
    assert spec.dtype == "float32"
    assert spec.shape is not None
    assert spec.shape[1:] == (3, 8, 8)
    assert isinstance(spec.shape[0], str)
    assert spec.shape[0].isidentifier()
    assert found.signature.outputs[0].shape is not None
    assert found.ops["aten.conv2d.default"] == 1
    leftovers = read_file(torch_files / "training.pt2").leftovers
    assert any("batch_norm" in leftover for leftover in leftovers)
    assert any("dropout" in leftover for leftover in leftovers)


def test_an_exported_program_of_an_unknown_schema(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "p.pt2", "w") as archive:
        archive.writestr("p/archive_format", "pt2")
        archive.writestr("p/models/model.json", json.dumps({"graph_module": {"graph": []}}))
    found = read_file(tmp_path / "p.pt2")
    assert found.kind == "exported-program"
    assert "schema" in found.warnings[0]


def test_a_pickled_module(torch_files: Path) -> None:
    found = read_file(torch_files / "module.pt")
    assert (found.kind, found.parameters, found.leftovers) == ("torch-module", PARAMETERS, ())
    assert "torch.nn.modules.container.Sequential" in found.warnings[0]
    assert "--trust" in found.warnings[0]
    names = {tensor.name: tensor for tensor in found.details["tensors"]}
    assert names["0.weight"].shape == (4, 3, 3, 3)
    assert names["1.num_batches_tracked"].dtype == "int64"
    assert "4 modules" in read_file(torch_files / "training.pt").leftovers[0]


def test_weights(torch_files: Path, tmp_path: Path) -> None:
    for name in ("checkpoint.ckpt", "legacy.pth"):
        found = read_file(torch_files / name)
        assert (found.kind, found.parameters) == ("torch-weights", PARAMETERS)  # tied weights once
        assert "--weights" in found.warnings[-1]
    assert "state_dict.0.weight" in {
        tensor.name for tensor in read_file(torch_files / "checkpoint.ckpt").details["tensors"]
    }
    from safetensors.numpy import save_file

    save_file(
        {"a": np.ones((2, 3), np.float16), "b": np.ones(4, np.int8)},
        tmp_path / "w.safetensors",
        {"note": "x"},
    )
    found = read_file(tmp_path / "w.safetensors")
    assert (found.kind, found.parameters, found.details["metadata"]) == ("safetensors", 10, {"note": "x"})
    assert {(tensor.name, tensor.dtype, tensor.shape) for tensor in found.details["tensors"]} == {
        ("a", "float16", (2, 3)),
        ("b", "int8", (4,)),
    }


def test_the_same_tensors_as_torch_loads(torch_files: Path) -> None:
    torch = pytest.importorskip("torch")
    state = torch.load(torch_files / "legacy.pth", weights_only=True)
    found = read_file(torch_files / "legacy.pth").details["tensors"]
    expected = [
        (name, str(tensor.dtype).removeprefix("torch."), tuple(tensor.shape))
        for name, tensor in state.items()
    ]
    assert [(tensor.name, tensor.dtype, tensor.shape) for tensor in found] == expected


def test_recognised_but_not_prepared(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # This version prepares them all.
    monkeypatch.setattr(inspecting, "kind_of", lambda name: dataclasses.replace(kind_of(name), steps=None))
    (tmp_path / "m.prototxt").write_text("layer { name: 'x' }\n")
    found = read_file(tmp_path / "m.prototxt")
    assert (found.kind, found.size, found.prepared, found.parameters) == ("caffe-prototxt", 20, False, None)
    assert "not prepared" in found.warnings[0]
    (tmp_path / "saved/variables").mkdir(parents=True)
    (tmp_path / "saved/saved_model.pb").write_bytes(
        b"\x08\x01\x12\x00"
    )  # schema version 1, one empty meta graph
    (tmp_path / "saved/variables/data").write_bytes(b"123")
    assert read_file(tmp_path / "saved").size == 7


def test_every_kind_encodes_to_json(torch_files: Path) -> None:
    for path in torch_files.iterdir():
        assert document(path)["kind"]


def test_errors(tmp_path: Path) -> None:
    with pytest.raises(UsageError):
        read_file(tmp_path / "gone")
    (tmp_path / "m.onnx").write_text("<html>")
    with pytest.raises(RefusedError, match="HTML"):
        read_file(tmp_path / "m.onnx")


def test_nothing_heavy_is_imported(torch_files: Path, tmp_path: Path) -> None:
    heavy = {"onnx", "onnx_ir", "torch", "safetensors", "onnxruntime", "MNN"}
    (tmp_path / "m.onnx").write_bytes(
        helper.make_model(helper.make_graph([], "g", [], [])).SerializeToString()
    )
    imports = "import sys; from mnnprep.commands.inspect import read_file"
    inspect_all = f"{imports}\nfor path in sys.argv[1:]: read_file(path)\n"
    code = inspect_all + f"print(sorted({heavy} & set(sys.modules)))"
    files = [str(path) for path in torch_files.iterdir()] + [str(tmp_path / "m.onnx")]
    environment = os.environ | {"PYTHONPATH": str(Path(mnnprep.__file__).parent.parent)}
    done = subprocess.run(
        [sys.executable, "-c", code, *files], capture_output=True, text=True, env=environment, check=True
    )
    assert done.stdout.strip() == "[]"


def test_weights_kept_in_constants_count(tmp_path: Path) -> None:
    node = helper.make_node("Constant", [], ["w"], value=numpy_helper.from_array(np.ones((3, 5), np.float32)))
    (tmp_path / "m.onnx").write_bytes(
        helper.make_model(helper.make_graph([node], "g", [], [])).SerializeToString()
    )
    assert read_file(tmp_path / "m.onnx").parameters == 15
