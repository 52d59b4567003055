"""What a file is: every kind is known by its content, and every broken or foreign file has its own error."""

from __future__ import annotations

import contextlib
import gzip
import io
import json
import os
import pickle
import struct
import tarfile
import tempfile
import zipfile
from collections import OrderedDict
from pathlib import Path
from typing import Any

import msgspec
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper

from mnnprep.errors import InternalError, RefusedError, UsageError
from mnnprep.formats.backend import Role
from mnnprep.formats.pickles import stored_tensors
from mnnprep.formats.registry import BACKENDS, backend_of, kind_of
from mnnprep.formats.sniff import identify
from mnnprep.formats.torch_files import pickle_globals
from mnnprep.weights.files import LocalFile
from mnnprep.weights.pickle_scan import PickleError, scan_pickle
from mnnprep.weights.safetensors import read_header


def write(path: Path, data: bytes | str) -> Path:
    path.write_bytes(data.encode() if isinstance(data, str) else data)
    return path


def refused(path: Path) -> RefusedError:
    with pytest.raises(RefusedError) as caught:
        identify(path)
    error = caught.value
    assert error.exit_code == 3
    assert error.what
    assert error.seen
    assert error.next
    return error


def refusal(path: Path) -> RefusedError | None:
    """The refusal of a file, None for one that has a kind; anything else is raised."""
    try:
        identify(path)
    except RefusedError as error:
        return error
    return None


def onnx_bytes() -> bytes:
    ports = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [1]) for name in "xy"]
    model: bytes = helper.make_model(
        helper.make_graph([helper.make_node("Relu", ["x"], ["y"])], "g", ports[:1], ports[1:])
    ).SerializeToString()
    return model


def safetensors_bytes(header: object, data: bytes = b"") -> bytes:
    encoded = json.dumps(header).encode()
    return struct.pack("<Q", len(encoded)) + encoded + data


def zip_of(path: Path, records: dict[str, bytes]) -> Path:
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in records.items():
            archive.writestr(name, data)
    return path


def message(number: int, content: bytes) -> bytes:
    """A length-delimited protobuf field of less than 128 bytes."""
    tag = number << 3 | 2
    head = bytes([tag]) if tag < 128 else bytes([tag & 0x7F | 0x80, tag >> 7])
    return head + bytes([len(content)]) + content


class TestTable:
    def test_every_row_can_be_asked_for(self) -> None:
        for backend in BACKENDS:
            for kind in backend.kinds:
                assert kind_of(kind.name) is kind
                assert backend_of(kind.name) is backend
                assert all(suffix.startswith(".") for suffix in kind.suffixes)
                assert kind.prepared == (kind.role is not Role.WEIGHTS)

    def test_an_unknown_kind_is_our_error(self) -> None:
        with pytest.raises(InternalError):
            kind_of("word-document")


class TestKnown:
    def test_onnx_under_any_name(self, tmp_path: Path) -> None:
        for name in ("a.onnx", "a.pt", "a", "a.bin"):
            assert identify(write(tmp_path / name, onnx_bytes())) == "onnx"

    def test_onnx_without_names(self, tmp_path: Path) -> None:
        model = onnx.ModelProto()
        model.CopyFrom(onnx.load_from_string(onnx_bytes()))
        model.ClearField("producer_name")
        assert identify(write(tmp_path / "m", model.SerializeToString())) == "onnx"

    def test_safetensors(self, tmp_path: Path) -> None:
        data = safetensors_bytes(
            {"w": {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}, "__metadata__": {"a": "b"}},
            bytes(8),
        )
        assert identify(write(tmp_path / "w.safetensors", data)) == "safetensors"
        assert identify(write(tmp_path / "w.bin", data)) == "safetensors"
        header = read_header(LocalFile(tmp_path / "w.bin", "w.bin"))
        assert [entry.shape for entry in header.tensors.values()] == [(2,)]
        assert header.metadata == {"a": "b"}

    def test_tensorflow_and_keras(self, tmp_path: Path) -> None:
        node = message(1, message(1, b"x") + message(2, b"Placeholder"))
        assert identify(write(tmp_path / "g.pb", node + node)) == "frozen-graph"
        (tmp_path / "saved").mkdir()
        write(tmp_path / "saved/saved_model.pb", b"\x08\x01" + message(2, b"\x0a\x00"))
        assert identify(tmp_path / "saved") == "savedmodel"
        assert "directory" in refused(tmp_path / "saved/saved_model.pb").next
        assert identify(write(tmp_path / "m.h5", b"\x89HDF\r\n\x1a\n" + bytes(90))) == "keras-h5"
        assert (
            identify(
                zip_of(
                    tmp_path / "m.keras",
                    {"metadata.json": b"{}", "config.json": b"{}", "model.weights.h5": b""},
                )
            )
            == "keras"
        )
        assert identify(write(tmp_path / "m.tflite", b"\x1c\0\0\0TFL3" + bytes(40))) == "tflite"

    def test_caffe(self, tmp_path: Path) -> None:
        assert (
            identify(write(tmp_path / "net.prototxt", 'name: "net"\nlayer {\n  name: "data"\n}\n'))
            == "caffe-prototxt"
        )
        assert identify(write(tmp_path / "old.txt", 'input: "data"\ninput_dim: 1\n')) == "caffe-prototxt"
        layer = message(100, message(1, b"conv1") + message(2, b"Convolution"))
        assert identify(write(tmp_path / "net.caffemodel", message(1, b"net") + layer)) == "caffemodel"
        old_layer = message(2, message(4, b"conv1") + b"\x28\x04")
        assert identify(write(tmp_path / "v1.caffemodel", message(1, b"net") + old_layer)) == "caffemodel"

    def test_mnn(self, tmp_path: Path) -> None:
        vtable = struct.pack("<HH8H", 20, 12, 0, 0, 0, 4, 0, 0, 0, 8)  # fields 3 (oplists) and 7 (tensorName)
        root = 4 + len(vtable)
        table = struct.pack("<iII", len(vtable), 8, 12)
        vectors = struct.pack("<II", 1, 8) + struct.pack("<II", 1, 4) + bytes(8)
        net = struct.pack("<I", root) + vtable + table + vectors
        assert identify(write(tmp_path / "m.mnn", net)) == "mnn"
        assert identify(write(tmp_path / "m.bin", net)) == "mnn"
        assert "truncated" in refused(write(tmp_path / "cut.mnn", net[: root + 8])).what


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch = pytest.importorskip("torch")
    directory = tmp_path_factory.mktemp("torch")
    net = torch.nn.Sequential(torch.nn.Linear(3, 2), torch.nn.Dropout()).eval()
    x = torch.zeros(1, 3)
    torch.jit.trace(net, x).save(str(directory / "traced.pt"))
    torch.jit.script(net).save(str(directory / "scripted.pt"))
    torch.export.save(torch.export.export(net, (x,)), directory / "program.pt2")
    for legacy in (False, True):
        end = "-legacy.pt" if legacy else ".pt"
        for name, value in {
            "module": net,
            "state": net.state_dict(),
            "checkpoint": {"model": net.state_dict(), "epoch": 1},
            "tensor": x,
            "list": [x],
        }.items():
            torch.save(value, directory / (name + end), _use_new_zipfile_serialization=not legacy)
    import torch.package

    with torch.package.PackageExporter(str(directory / "package.pt")) as exporter:
        exporter.extern("**")
        exporter.save_pickle("m", "m.pkl", {"a": x})
    return directory


class TestTorch:
    @pytest.mark.parametrize(
        ("name", "kind"),
        [
            ("traced.pt", "torchscript"),
            ("scripted.pt", "torchscript"),
            ("program.pt2", "exported-program"),
            ("module.pt", "torch-module"),
            ("module-legacy.pt", "torch-module"),
            *(
                (f"{name}{end}.pt", "torch-weights")
                for name in ("state", "checkpoint", "tensor", "list")
                for end in ("", "-legacy")
            ),
        ],
    )
    def test_kinds(self, files: Path, name: str, kind: str, tmp_path: Path) -> None:
        assert identify(files / name) == kind
        assert identify(write(tmp_path / "x.onnx", (files / name).read_bytes())) == kind

    def test_package(self, files: Path) -> None:
        error = refused(files / "package.pt")
        assert "torch.package" in error.what
        assert "factory" in error.next

    @pytest.mark.parametrize(
        "name", ["traced.pt", "program.pt2", "state.pt", "state-legacy.pt", "module-legacy.pt"]
    )
    def test_every_truncation_is_refused(self, files: Path, name: str, tmp_path: Path) -> None:
        whole = (files / name).read_bytes()
        for length in sorted({*range(64, len(whole), max(1, len(whole) // 60)), len(whole) - 1}):
            refused(write(tmp_path / name, whole[:length]))
        assert "truncated" in refused(write(tmp_path / name, whole[:-1])).what

    def test_globals_name_what_loading_would_import(self, files: Path) -> None:
        for name in ("module.pt", "module-legacy.pt"):
            names = pickle_globals(files / name)
            assert names[0] == "torch.nn.modules.container.Sequential"
            assert "torch.nn.modules.linear.Linear" in names
        assert set(pickle_globals(files / "state.pt")) == {
            "collections.OrderedDict",
            "torch._utils._rebuild_tensor_v2",
            "torch.FloatStorage",
        }

    def test_old_containers(self, tmp_path: Path) -> None:
        state = pickle.dumps(OrderedDict(a=1), protocol=2)
        with tarfile.open(tmp_path / "old.pt", "w") as archive:
            for name in ("sys_info", "pickle", "storages", "tensors"):
                info = tarfile.TarInfo(name)
                info.size = len(state)
                archive.addfile(info, io.BytesIO(state))
        assert identify(tmp_path / "old.pt") == "torch-weights"
        old = {"serialized_exported_program.json": b"{}", "serialized_state_dict.pt": b"", "version": b"5"}
        assert identify(zip_of(tmp_path / "old.pt2", old)) == "exported-program"
        assert (
            identify(
                zip_of(tmp_path / "first.pt", {"m/model.json": b"{}", "m/code/m.py": b"", "m/tensors/0": b""})
            )
            == "torchscript"
        )
        compiled = zip_of(
            tmp_path / "aoti.pt2", {"m/archive_format": b"pt2", "m/data/aotinductor/model/x.so": b""}
        )
        assert "AOTInductor" in refused(compiled).what


class TestPickles:
    """Nothing of a pickle is executed, and what it would import is named."""

    def test_a_hostile_pickle_is_named_and_not_run(self, tmp_path: Path) -> None:
        marker = tmp_path / "ran"

        class Hostile:
            def __reduce__(self) -> Any:
                return os.system, (f"touch {marker}",)

        for protocol in range(5):
            data = pickle.dumps(Hostile(), protocol=protocol)
            path = zip_of(tmp_path / "h.pt", {"h/data.pkl": data, "h/version": b"3"})
            assert identify(path) == "torch-module"
            assert pickle_globals(path) == ["posix.system"]
            stored_tensors(io.BytesIO(data))
            assert pickle_globals(write(tmp_path / "plain.pkl", data)) == ["posix.system"]
            inside = zip_of(
                tmp_path / "d.pt", {"h/data.pkl": pickle.dumps({"a": Hostile()}, protocol=protocol)}
            )
            assert identify(inside) == "torch-weights"
            assert "posix.system" in pickle_globals(inside)
        assert not marker.exists()

    def test_names_from_the_memo(self) -> None:
        data = b"\x80\x04\x8c\x02os\x94\x8c\x06system\x94\x93\x8c\x01x0h\x00h\x01\x93."
        assert scan_pickle(io.BytesIO(data)).globals == ("os.system",)

    def test_a_computed_name_is_told(self) -> None:
        assert "computed" in scan_pickle(io.BytesIO(b"\x80\x04K\x01K\x02\x93.")).globals[0]

    def test_numbers_that_would_reserve_memory(self, tmp_path: Path) -> None:
        with pytest.raises(PickleError, match="memo index"):
            stored_tensors(io.BytesIO(b"\x80\x02}r\xff\xff\xff\x7f."))
        legacy = b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19."
        error = refused(write(tmp_path / "m.pt", legacy + b"\x8e" + bytes(7) + b"\x01"))
        assert "truncated" in error.what

    @given(st.binary(max_size=80))
    @settings(max_examples=300, deadline=None)
    def test_noise_is_an_error_or_a_pickle(self, noise: bytes) -> None:
        for data in (noise, b"\x80\x02" + noise + b"."):
            with contextlib.suppress(PickleError):
                stored_tensors(io.BytesIO(data))


class TestRefused:
    def test_a_missing_path_is_a_usage_error(self, tmp_path: Path) -> None:
        (tmp_path / "broken").symlink_to(tmp_path / "nowhere")
        for path in (tmp_path / "gone.onnx", tmp_path / "broken"):
            with pytest.raises(UsageError) as caught:
                identify(path)
            assert caught.value.exit_code == 2
            assert str(path) in caught.value.seen
            assert caught.value.next

    def test_empty(self, tmp_path: Path) -> None:
        assert "empty" in refused(write(tmp_path / "m.onnx", b"")).what

    @pytest.mark.parametrize(
        "page",
        [
            "<!DOCTYPE html><html><head><title>Sign in</title>",
            "\ufeff\n <HTML>",
            "<?xml version='1.0'?>\n<html xmlns='x'>",
            "<!-- c --><html>",
        ],
    )
    def test_html(self, tmp_path: Path, page: str) -> None:
        error = refused(write(tmp_path / "m.onnx", page))
        assert "HTML" in error.what
        assert "download" in error.next
        assert "Sign in" in error.seen or "title" not in page

    def test_lfs_pointer(self, tmp_path: Path) -> None:
        pointer = "version https://git-lfs.github.com/spec/v1\noid sha256:4d7a214614ab2935\nsize 132735151\n"
        error = refused(write(tmp_path / "m.onnx", pointer))
        assert "LFS" in error.what
        assert "sha256:4d7a214614ab2935" in error.seen
        assert "132735151" in error.seen
        assert error.next.startswith("git lfs pull")

    @pytest.mark.parametrize(
        ("data", "looks"),
        [
            (b"\x89PNG\r\n\x1a\n" + bytes(20), "PNG"),
            (gzip.compress(b"x", mtime=0), "gzip"),
            (b"hello there\nworld", "plain text"),
            (b'{"a": 1}', "JSON"),
            (b"\xff\xd8\xff\xe0" + bytes(9), "JPEG"),
            (b"\x93NUMPY\x01\x00", "NumPy"),
            (b"\x80\x04}\x94.", "pickle"),
            (b"import torch\n", "Python source"),
            (b'{"metadata": {}, "weight_map": {"a": "b"}}', "sharded"),
            (b"<net name='x'/>", "XML"),
            (b"\x7fELF\x02", "ELF"),
            (b"\xf3\x91\x07\xee\xd1" * 9, "f3 91 07"),
            (b"\0" * 64, "00 00"),
            (b"GGUF\x03\0\0\0", "GGUF"),
            (b"\n\n", "blank"),
            (b"\x20\0\0\0ORTM" + bytes(30), "ONNX Runtime"),
            (b"\xe4\xbd\xa0" * 2000, "plain text"),
        ],
    )
    @pytest.mark.parametrize("suffix", [".onnx", ".pt", ".xyz", ".mnn"])
    def test_foreign(self, tmp_path: Path, data: bytes, looks: str, suffix: str) -> None:
        error = refused(write(tmp_path / f"m{suffix}", data))
        assert looks in error.seen or error.what.startswith("the ONNX model is")

    @pytest.mark.parametrize(
        ("name", "said"),
        [
            ("m.onnx", "ONNX model"),
            ("m.pt", "PyTorch file"),
            ("m.pt2", "torch.export program"),
            ("m.tflite", "TensorFlow Lite"),
        ],
    )
    def test_a_name_that_promises_something_else(self, tmp_path: Path, name: str, said: str) -> None:
        assert refused(write(tmp_path / name, b"\x89PNG\r\n\x1a\n")).what.startswith(
            f"the file's name says {said}"
        )

    def test_prose_about_code_is_not_code(self, tmp_path: Path) -> None:
        assert "plain text" in refused(write(tmp_path / "README", "# Usage\n\nType:\n\nimport torch\n")).seen
        assert (
            "Python source"
            in refused(write(tmp_path / "net.py", "# Copyright\n\nfrom torch import nn\n")).seen
        )

    def test_a_tar_and_other_zips(self, tmp_path: Path) -> None:
        with tarfile.open(tmp_path / "m.tar", "w") as archive:
            archive.add(write(tmp_path / "f", "x"), "f")
        assert "tar archive" in refused(tmp_path / "m.tar").seen
        assert "--samples" in refused(zip_of(tmp_path / "a.npz", {"x.npy": b""})).seen
        assert "word/document.xml" in refused(zip_of(tmp_path / "a.pt", {"word/document.xml": b""})).seen

    def test_truncated_zip(self, tmp_path: Path) -> None:
        whole = zip_of(tmp_path / "w.pt", {"w/data.pkl": b"}." * 50}).read_bytes()
        assert "truncated" in refused(write(tmp_path / "cut.pt", whole[:-30])).what

    def test_a_damaged_record(self, tmp_path: Path) -> None:
        with zipfile.ZipFile(tmp_path / "d.pt", "w", zipfile.ZIP_DEFLATED) as archive:
            archive.writestr("d/data.pkl", os.urandom(64) + bytes(999))
        whole = bytearray((tmp_path / "d.pt").read_bytes())
        for index in range(30, len(whole)):
            damaged = whole.copy()
            damaged[index] ^= 0xFF
            error = refusal(write(tmp_path / "d.pt", bytes(damaged)))
            assert error is None or error.exit_code == 3

    def test_every_truncation_of_an_onnx_file(self, tmp_path: Path) -> None:
        whole = onnx_bytes()
        for length in range(1, len(whole)):
            path = write(tmp_path / "m.onnx", whole[:length])
            error = refusal(path)  # None for a cut between two fields
            assert error is None or length < 3 or "truncated" in error.what, length

    @pytest.mark.parametrize(
        ("header", "data", "reason"),
        [
            ({"w": {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}}, bytes(7), "describes"),
            ({"w": {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}}, bytes(9), "describes"),
            ({"w": {"dtype": "F32", "shape": [3], "data_offsets": [0, 8]}}, bytes(8), "takes 12 bytes"),
            ({"w": {"dtype": "F32", "shape": [2], "data_offsets": [4, 12]}}, bytes(12), "offsets"),
            ({"w": {"dtype": "F99", "shape": [2], "data_offsets": [0, 8]}}, bytes(8), "F99"),
            ({"w": {"dtype": "F32", "shape": [-2], "data_offsets": [0, 8]}}, bytes(8), "-2"),
            ({"w": 5}, b"", "not what safetensors writes"),
        ],
    )
    def test_a_lying_safetensors_header(
        self, tmp_path: Path, header: object, data: bytes, reason: str
    ) -> None:
        error = refused(write(tmp_path / "w.safetensors", safetensors_bytes(header, data)))
        assert "does not fit" in error.what
        assert reason in error.seen

    def test_a_safetensors_header_that_is_cut_or_too_long(self, tmp_path: Path) -> None:
        whole = safetensors_bytes({"w": {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}}, bytes(8))
        for length in range(2, len(whole)):
            assert "does not fit" in refused(write(tmp_path / "w.safetensors", whole[:length])).what
        assert (
            "does not fit"
            in refused(write(tmp_path / "w.safetensors", struct.pack("<Q", 1 << 40) + b"{}")).what
        )

    def test_directories_and_devices(self, tmp_path: Path) -> None:
        (tmp_path / "d").mkdir()
        assert "empty" in refused(tmp_path / "d").seen
        write(tmp_path / "d/config.json", "{}")
        assert "config.json" in refused(tmp_path / "d").seen
        os.mkfifo(tmp_path / "pipe")
        assert "neither" in refused(tmp_path / "pipe").what

    @given(
        st.binary(min_size=1, max_size=300),
        st.sampled_from([".onnx", ".pt", ".pb", ".mnn", ".safetensors", ""]),
    )
    @settings(max_examples=300, deadline=None)
    def test_noise_never_surprises(self, noise: bytes, suffix: str) -> None:
        with tempfile.TemporaryDirectory() as directory:
            for prefix in (
                b"",
                b"\x08\x08",
                b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19.",
                b"PK\x03\x04",
                struct.pack("<IHH", 4, 20, 12),
            ):
                error = refusal(write(Path(directory) / f"noise{suffix}", prefix + noise))
                assert error is None or msgspec.json.encode(error.to_dict())
