"""ONNX sources, real ones among them, from the command line to a bundle that is proven again."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from evaluation.nets.mnn_models import floats, node, save
from evaluation.nets.real_models import fetch
from mnnprep.evidence.verdict import Verdict
from mnnprep.model.files import sha256
from support.command import call, environment, prepared, program

REFUSED, NOT_PROVEN = 3, 1


@pytest.mark.real
@pytest.mark.parametrize(
    ("name", "options", "dims"),
    [
        ("mtcnn-pnet.onnx", [], {"N", "M1", "M2"}),
        ("mtcnn-rnet.onnx", ["--dim", "N=1:5"], {"N"}),
        ("mtcnn-onet.onnx", ["--dim", "N=1:5"], {"N"}),
        ("basic-pitch.onnx", ["--dim", "serving_default_input_2:0_0=1:2"], {"serving_default_input_2:0_0"}),
    ],
)
def test_trained_models(tmp_path: Path, name: str, options: list[str], dims: set[str]) -> None:
    """Each is proven, at every size declared, and again by verify from the bundle alone."""
    manifest = prepared(fetch(name), tmp_path / "out", *options)
    assert manifest.verdict is Verdict.PROVEN, manifest.artifact.attempts
    assert set(manifest.signature.dims) == dims
    for dim in manifest.signature.dims.values():
        assert len(dim.proven) >= 2
        assert dim.min is None or {dim.min, dim.max} <= set(dim.proven)
    if not manifest.artifact.repairs:
        assert manifest.artifact.files[0].sha256 == sha256(fetch(name))
    assert len(manifest.cases) >= 3
    assert call("verify", tmp_path / "out").code == 0


def scattered(directory: Path) -> Path:
    """A model with two weights, each in a data file of its own, one in a subdirectory."""
    rng = np.random.default_rng(0)
    (directory / "data").mkdir(parents=True)
    tensors = []
    for name, location, shape in (("w", "w.bin", (64, 32)), ("v", "data/v.bin", (32, 8))):
        array = rng.standard_normal(shape).astype(np.float32)
        (directory / location).write_bytes(array.tobytes())
        tensor = TensorProto(
            name=name, data_type=TensorProto.FLOAT, dims=shape, data_location=TensorProto.EXTERNAL
        )
        tensor.external_data.add(key="location", value=location)
        tensors.append(tensor)
    nodes = [node("MatMul", ["x", "w"], ["h"]), node("Relu", ["h"], ["r"]), node("MatMul", ["r", "v"], ["y"])]
    values = (
        [helper.make_tensor_value_info(*floats("x", "batch", 64))],
        [helper.make_tensor_value_info(*floats("y", "batch", 8))],
    )
    model = helper.make_model(
        helper.make_graph(nodes, "net", *values, tensors),
        opset_imports=[helper.make_opsetid("", 13)],
        ir_version=8,
    )
    (directory / "net.onnx").write_bytes(model.SerializeToString())
    return directory / "net.onnx"


class TestExternalData:
    def test_it_is_consolidated(self, tmp_path: Path) -> None:
        source = scattered(tmp_path / "net")
        manifest = prepared(source, tmp_path / "out", "--dim", "batch=1:4")
        assert manifest.verdict is Verdict.PROVEN, manifest.artifact.attempts
        assert [f.path for f in manifest.artifact.files] == ["model.onnx", "model.onnx.data"]
        model = onnx.load(tmp_path / "out" / "model.onnx")
        assert {t.name: numpy_helper.to_array(t).shape for t in model.graph.initializer} == {
            "w": (64, 32),
            "v": (32, 8),
        }
        shutil.rmtree(source.parent)
        assert call("verify", tmp_path / "out").code == 0

    def test_data_files_that_are_links(self, tmp_path: Path) -> None:
        """As a download cache has them: every file a link to one that is named by its hash."""
        stored = scattered(tmp_path / "blobs")
        source = tmp_path / "snapshot" / "net.onnx"
        (source.parent / "data").mkdir(parents=True)
        for name in ("net.onnx", "w.bin", "data/v.bin"):
            (source.parent / name).symlink_to(stored.parent / name)
        manifest = prepared(source, tmp_path / "out", "--dim", "batch=1:2")
        assert manifest.verdict is Verdict.PROVEN, manifest.artifact.attempts

    def test_a_missing_part_is_refused(self, tmp_path: Path) -> None:
        source = scattered(tmp_path / "net")
        (source.parent / "data" / "v.bin").unlink()
        result = call("prepare", source, "-o", tmp_path / "out")
        assert result.code == REFUSED
        assert "data/v.bin: missing" in result.err
        assert not (tmp_path / "out").exists()

    def test_a_cut_part_is_refused(self, tmp_path: Path) -> None:
        source = scattered(tmp_path / "net")
        (source.parent / "w.bin").write_bytes(b"\0" * 100)
        result = call("prepare", source, "-o", tmp_path / "out")
        assert result.code == REFUSED
        assert "w.bin: too short" in result.err


WITHOUT_TORCH = """
import importlib.abc, sys
class Absent(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in ("torch", "jinja2"):
            raise ModuleNotFoundError(name)
sys.meta_path.insert(0, Absent())
from mnnprep.cli.main import main
main(["verify", sys.argv[1], "--json"])
"""


class TestVerify:
    @pytest.fixture(scope="class")
    @classmethod
    def bundle(cls, tmp_path_factory: pytest.TempPathFactory) -> Path:
        root = tmp_path_factory.mktemp("verify")
        prepared(scattered(root / "net"), root / "bundle", "--dim", "batch=1:3")
        shutil.rmtree(root / "net")
        return root / "bundle"

    @pytest.fixture
    def altered(self, bundle: Path, tmp_path: Path) -> Callable[[str, bytes], Path]:
        """A copy of the bundle with one file changed."""

        def make(name: str, data: bytes) -> Path:
            shutil.copytree(bundle, tmp_path / "copy")
            (tmp_path / "copy" / name).write_bytes(data)
            return tmp_path / "copy"

        return make

    def test_it_is_proven_again(self, bundle: Path) -> None:
        result = call("verify", bundle, "--json")
        assert result.code == 0
        document = result.document()
        assert (document["verdict"], document["recorded"]) == ("proven", "proven")
        assert {
            c["check"]: c["status"]
            for c in document["evidence"]
            if c["check"] in ("artifact_compare", "mnn_compare")
        } == {"artifact_compare": "passed", "mnn_compare": "passed"}

    def test_elsewhere_without_torch(self, bundle: Path, tmp_path: Path) -> None:
        shutil.copytree(bundle, tmp_path / "moved")
        done = subprocess.run(
            [sys.executable, "-c", WITHOUT_TORCH, "moved"],
            cwd=tmp_path,
            env=environment(),
            capture_output=True,
            text=True,
            timeout=120,
        )
        assert done.returncode == 0, done.stderr
        assert json.loads(done.stdout)["verdict"] == "proven"

    def test_a_flipped_byte_in_any_file(
        self, bundle: Path, altered: Callable[[str, bytes], Path], tmp_path: Path
    ) -> None:
        listed = [f["path"] for f in json.loads((bundle / "manifest.json").read_text())["files"]]
        assert {"model.onnx", "model.onnx.data", "model.mnn", "cases/0.npz", "mnn-test/input.json"} <= set(
            listed
        )
        for name in listed:
            data = bytearray((bundle / name).read_bytes())
            data[len(data) // 2] ^= 1
            result = call("verify", altered(name, bytes(data)), "--json")
            assert result.code == NOT_PROVEN, name
            assert result.document()["verdict"] == "differs"
            assert name in json.dumps(result.document()["evidence"])
            shutil.rmtree(tmp_path / "copy")

    def test_a_missing_file(self, bundle: Path, altered: Callable[[str, bytes], Path]) -> None:
        copy = altered("model.mnn", b"")
        (copy / "model.mnn").unlink()
        result = call("verify", copy, "--json")
        assert result.code == NOT_PROVEN
        assert "model.mnn" in json.dumps(result.document()["evidence"])

    @pytest.mark.parametrize("path", ["../outside.onnx", "/etc/hostname", "cases/../../outside.onnx"])
    def test_a_file_outside_is_refused(
        self, bundle: Path, altered: Callable[[str, bytes], Path], tmp_path: Path, path: str
    ) -> None:
        manifest = (bundle / "manifest.json").read_text()
        (tmp_path / "outside.onnx").write_bytes((bundle / "model.onnx").read_bytes())
        result = call(
            "verify",
            altered("manifest.json", manifest.replace('"path": "model.onnx"', f'"path": "{path}"').encode()),
            "--json",
        )
        assert result.code == REFUSED, result.err
        assert "outside" in result.err

    @pytest.mark.parametrize(
        "text",
        ["", "{", "[]", '{"schema": "mnnprep.bundle/99"}', '{"schema": "mnnprep.bundle/1"}', '{"schema": 1}'],
    )
    def test_a_manifest_that_is_none(self, altered: Callable[[str, bytes], Path], text: str) -> None:
        result = call("verify", altered("manifest.json", text.encode()), "--json")
        assert result.code == REFUSED
        assert result.document()["error"]["kind"] == "refused"

    def test_a_manifest_that_claims_more(self, bundle: Path, altered: Callable[[str, bytes], Path]) -> None:
        """The verdict is concluded from the evidence, not read."""
        manifest = json.loads((bundle / "manifest.json").read_text())
        manifest["evidence"] = [c for c in manifest["evidence"] if c["check"] != "mnn_compare"]
        result = call("verify", altered("manifest.json", json.dumps(manifest).encode()), "--json")
        assert result.code == NOT_PROVEN
        assert result.document()["verdict"] == "differs"
        assert "it claims proven, and its evidence gives unproven" in result.out

    def test_as_a_program(self, bundle: Path) -> None:
        result = program("verify", ".", cwd=bundle)
        assert result.code == 0, result.err
        assert "PROVEN" in result.out
        assert program("report", ".", cwd=bundle).code == 0
        assert program("verify", ".", cwd=bundle).code == 0


def test_a_node_that_takes_a_sequence_is_no_failure_of_ours(tmp_path: Path) -> None:
    """No case holds a sequence, so that nothing is run alone; the verdict stands, and names the nodes
    together.
    """
    nodes = [
        helper.make_node("SequenceConstruct", ["x", "x"], ["s"]),
        helper.make_node("SequenceLength", ["s"], ["y"]),
    ]
    model = save(tmp_path / "m.onnx", nodes, [floats("x", 2, 3)], [("y", TensorProto.INT64, ())])
    result = call("prepare", model, "-o", tmp_path / "out", "--no-repair")
    assert result.code in (NOT_PROVEN, REFUSED)
    assert "defect" not in result.err
    assert (tmp_path / "out" / "manifest.json").is_file()
