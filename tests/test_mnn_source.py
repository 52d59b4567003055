"""A ``.mnn`` file as a source: re-optimized, kept in fewer bits with the cost shown, as JSON and back,
inspected, refused.
"""

from __future__ import annotations

import json
import struct
from pathlib import Path

import numpy as np
import onnx
import pytest

import mnnprep
from evaluation.nets.mnn_models import floats, matmul, node, save
from mnnprep.bundle.manifest import Manifest
from mnnprep.errors import RefusedError, UsageError
from mnnprep.evidence.check import Status
from mnnprep.evidence.verdict import Verdict
from mnnprep.formats.mnn_file.summary import read_summary
from mnnprep.mnn.boundary import OPLISTS, TYPE
from mnnprep.model.files import load_arrays, sha256
from mnnprep.wire.flatbuffer import root
from support.command import call, checks_of, prepared, program


def convolution(directory: Path) -> Path:
    """A convolution and a product with weights of all sizes, 1e-9 among them, as MNN has it."""
    rng = np.random.default_rng(0)
    kernel = (rng.standard_normal((64, 3, 3, 3)) * 10.0 ** rng.integers(-9, 1, (64, 3, 3, 3))).astype(
        np.float32
    )
    matrix = rng.standard_normal((64, 4)).astype(np.float32)
    nodes = [
        node("Conv", ["x", "k"], ["c"], kernel_shape=[3, 3]),
        node("Relu", ["c"], ["r"]),
        node("GlobalAveragePool", ["r"], ["g"]),
        node("Flatten", ["g"], ["f"], axis=1),
        node("MatMul", ["f", "m"], ["y"]),
    ]
    save(
        directory / "net.onnx",
        nodes,
        [floats("x", "batch", 3, 9, 9)],
        [floats("y", "batch", 4)],
        {"k": kernel, "m": matrix},
    )
    return converted(directory / "net.onnx")


def converted(path: Path) -> Path:
    """The .mnn file of an ONNX model."""
    bundle = path.with_suffix(".bundle")
    manifest = prepared(path, bundle)
    assert manifest.verdict is Verdict.PROVEN
    return bundle / "model.mnn"


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return convolution(tmp_path_factory.mktemp("mnn"))


DYNAMIC = ("--input", "x=float32[batch,3,9,9]", "--dim", "batch=1:4")


def cost(manifest: Manifest) -> dict[str, object]:
    (check,) = checks_of(manifest, "precision")
    return dict(check.numbers)


def test_a_model_is_made_anew_and_proven_against_itself(model: Path, tmp_path: Path) -> None:
    manifest = prepared(model, tmp_path / "out", *DYNAMIC)
    assert manifest.verdict is Verdict.PROVEN
    assert (manifest.source.kind, manifest.artifact.format, manifest.artifact.method) == (
        "mnn",
        "mnn",
        "copy",
    )
    assert sha256(tmp_path / "out" / "source.mnn") == sha256(model)
    assert {1, 4} <= set(manifest.signature.dims["batch"].proven)
    assert manifest.signature.inputs[0].layout == "NCHW"
    assert call("verify", tmp_path / "out").code == 0


def test_the_id_is_pinned(model: Path, tmp_path: Path) -> None:
    hashes = set()
    for name in ("a", "b"):
        assert program("prepare", model, "-o", tmp_path / name).code == 0
        hashes.add((sha256(tmp_path / name / "model.mnn"), sha256(tmp_path / name / "manifest.json")))
    assert len(hashes) == 1


def test_fewer_bits_cost_more_and_weigh_less(model: Path, tmp_path: Path) -> None:
    np.savez(
        tmp_path / "images.npz", x=np.random.default_rng(1).standard_normal((6, 3, 9, 9)).astype(np.float32)
    )
    costs = {}
    for name, options in {
        "fp16": ["--fp16"],
        "8": ["--weight-bits", "8"],
        "4": ["--weight-bits", "4", "--budget", "1"],
    }.items():
        manifest = prepared(
            model, tmp_path / name, *DYNAMIC[:2], "--samples", tmp_path / "images.npz", *options
        )
        costs[name] = cost(manifest)
        assert manifest.tolerance.sqnr_db == costs[name]["least_sqnr_db"]
        assert costs[name]["rows"] == 6
        assert manifest.source.options["precision"]["fp16"] is (name == "fp16")
        assert call("verify", tmp_path / name).code == manifest.verdict.exit_code
        assert costs[name]["bytes"] == (tmp_path / name / manifest.mnn.path).stat().st_size
    sizes, decibels = ([float(str(costs[n][k])) for n in ("fp16", "8", "4")] for k in ("bytes", "sqnr_db"))
    assert sizes == sorted(sizes, reverse=True)
    assert decibels == sorted(decibels, reverse=True)
    assert decibels[0] >= 50
    kept = {name: read_summary(tmp_path / name / "model.mnn").weights for name in ("fp16", "8")}
    assert kept == {"fp16": {"float16": 2}, "8": {"quantized": 2}}


def test_shapes_can_be_resolved_for_one_size(model: Path, tmp_path: Path) -> None:
    manifest = prepared(model, tmp_path / "out", "--static")
    assert manifest.verdict is Verdict.PROVEN
    assert read_summary(tmp_path / "out" / "model.mnn").usage == "INFERENCE_STATIC"
    result = call("prepare", model, "-o", tmp_path / "b", "--static", *DYNAMIC)
    assert result.code == 2
    assert "open: batch" in result.err


def test_below_the_budget_it_differs_and_says_what_to_do(model: Path, tmp_path: Path) -> None:
    result = call("prepare", model, "-o", tmp_path / "out", "--weight-bits", "4", "--budget", "90", "--json")
    assert result.code == 1
    document = result.document()
    assert document["verdict"] == "differs"
    check = next(c for c in document["evidence"] if c["check"] == "precision")
    assert check["status"] == "failed"
    assert "--budget" in check["reason"]
    shown = call("prepare", model, "-o", tmp_path / "out", "--force", "--weight-bits", "4", "--budget", "90")
    assert "cost of the precision" in shown.out


def test_any_source_can_be_kept_in_fewer_bits(tmp_path: Path) -> None:
    manifest = prepared(matmul(tmp_path / "m.onnx"), tmp_path / "out", "--fp16")
    assert manifest.verdict is Verdict.PROVEN
    assert checks_of(manifest, "artifact_compare")[0].numbers["max_abs"] == 0, (
        "less precision is allowed to the converted model alone"
    )


@pytest.mark.parametrize(
    "options", [("--fp16", "--weight-bits", "8"), ("--budget", "20"), ("--weight-bits", "5")]
)
def test_options_that_do_not_go_together_are_a_wrong_call(options: tuple[str, ...], tmp_path: Path) -> None:
    assert call("prepare", matmul(tmp_path / "m.onnx"), "-o", tmp_path / "out", *options).code == 2


def test_the_python_function_takes_them_too(model: Path, tmp_path: Path) -> None:
    manifest = mnnprep.prepare(model, tmp_path / "out", fp16=True)
    assert manifest is not None
    assert manifest.tolerance.sqnr_db == 50
    with pytest.raises(UsageError):
        mnnprep.prepare(model, tmp_path / "b", weight_bits=3)


def test_json_there_and_back_computes_the_same(model: Path, tmp_path: Path) -> None:
    assert call("json", model, "-o", tmp_path / "net.json").code == 0
    tree = json.loads(
        (tmp_path / "net.json").read_text(), parse_constant=lambda word: pytest.fail(f"{word} is no JSON")
    )
    assert tree["oplists"]
    assert call("json", tmp_path / "net.json", "-o", tmp_path / "back.mnn").code == 0
    assert call("json", tmp_path / "back.mnn", "-o", tmp_path / "again.json").code == 0
    assert (tmp_path / "again.json").read_bytes() == (tmp_path / "net.json").read_bytes()
    for name, path in {"a": model, "b": tmp_path / "back.mnn"}.items():
        assert prepared(path, tmp_path / name).verdict is Verdict.PROVEN
    for case in (tmp_path / "a" / "cases").iterdir():
        mine, other = load_arrays(case), load_arrays(tmp_path / "b" / "cases" / case.name)
        assert all(np.array_equal(mine[n], other[n]) for n in mine), "bit by bit"


def test_json_in_another_order_is_the_same_model(model: Path, tmp_path: Path) -> None:
    assert call("json", model, "-o", tmp_path / "net.json").code == 0
    tree = json.loads((tmp_path / "net.json").read_text())
    (tmp_path / "sorted.json").write_text(json.dumps(tree, sort_keys=True, indent=1))
    assert call("json", tmp_path / "sorted.json", "-o", tmp_path / "back.mnn").code == 0
    assert call("json", tmp_path / "back.mnn", "-o", tmp_path / "again.json").code == 0
    assert json.loads((tmp_path / "again.json").read_text()) == tree


def test_small_numbers_survive_json(model: Path, tmp_path: Path) -> None:
    """MNN's own JSON has six decimals: 1e-9 would be 0."""
    assert call("json", model, "-o", tmp_path / "net.json").code == 0
    numbers = [
        v
        for op in json.loads((tmp_path / "net.json").read_text())["oplists"]
        for v in op.get("main", {}).get("weight", [])
    ]
    kernel = onnx.numpy_helper.to_array(onnx.load(model.parents[1] / "net.onnx").graph.initializer[0])
    assert np.abs(kernel).min() < 1e-8
    assert np.array_equal(np.sort(np.array(numbers, np.float32)[: kernel.size]), np.sort(kernel.ravel()))


def test_what_is_not_finite_survives_json(tmp_path: Path) -> None:
    values = np.array([[1, np.inf, -np.inf, np.nan]], np.float32)
    save(
        tmp_path / "w.onnx",
        [node("Add", ["x", "c"], ["y"])],
        [floats("x", 1, 4)],
        [floats("y", 1, 4)],
        {"c": values},
    )
    source = converted(tmp_path / "w.onnx")
    assert call("json", source, "-o", tmp_path / "w.json").code == 0
    text = (tmp_path / "w.json").read_text()
    json.loads(text, parse_constant=lambda word: pytest.fail(f"{word} is no JSON"))
    assert '[1.0, "inf", "-inf", "nan"]' in text
    assert call("json", tmp_path / "w.json", "-o", tmp_path / "back.mnn").code == 0
    assert struct.pack("<4f", *values[0]) in (tmp_path / "back.mnn").read_bytes()


@pytest.mark.parametrize(
    ("content", "code", "words"),
    [
        ("{", 3, "not valid JSON"),
        ("[]", 3, "not an MNN model"),
        ('{"bizCode": "x"}', 3, "not an MNN model"),
        ('{"oplists": [{"type": "Magic"}]}', 3, "/oplists/0/type is 'Magic'"),
    ],
)
def test_what_is_no_json_of_a_model_is_said(content: str, code: int, words: str, tmp_path: Path) -> None:
    (tmp_path / "x.json").write_text(content)
    result = call("json", tmp_path / "x.json", "-o", tmp_path / "x.mnn")
    assert result.code == code
    assert words in result.err
    assert not (tmp_path / "x.mnn").exists()


def test_json_targets_are_checked(model: Path, tmp_path: Path) -> None:
    (tmp_path / "there.json").write_text("mine")
    assert call("json", model, "-o", tmp_path / "there.json").code == 2
    assert (tmp_path / "there.json").read_text() == "mine"
    assert call("json", model, "-o", tmp_path / "x.mnn").code == 2
    assert call("json", tmp_path / "none.mnn", "-o", tmp_path / "x.json").code == 2
    assert call("json", model, "-o", tmp_path / "no" / "x.json").code == 2
    assert call("json", matmul(tmp_path / "m.onnx"), "-o", tmp_path / "x.json").code == 3


def test_inspect_reads_the_file(model: Path) -> None:
    found = call("inspect", model, "--json").document()
    assert (found["kind"], found["details"]["source"], found["details"]["usage"]) == (
        "mnn",
        "ONNX",
        "INFERENCE",
    )
    assert found["details"]["version"]
    assert found["details"]["layouts"] == {"x": "NCHW"}
    assert found["details"]["weights"] == {"float32": 2}
    assert [t["name"] for t in found["signature"]["outputs"]] == ["y"]
    assert found["ops"]["Convolution"] == 2
    assert found["details"]["uuid"]


def test_a_newer_version_and_an_unknown_operator_are_told(model: Path, tmp_path: Path) -> None:
    data = bytearray(model.read_bytes())
    version = read_summary(model).version
    data = data.replace(version.encode(), (str(9) + version[1:]).encode())
    net = root(data)
    op = next(o for o in net.tables(OPLISTS) if o.place(TYPE))
    struct.pack_into("<i", data, op.place(TYPE), 9999)
    newer = tmp_path / "newer.mnn"
    newer.write_bytes(data)
    found = call("inspect", newer, "--json").document()
    assert found["details"]["version"].startswith("9")
    assert any("newer than" in line for line in found["warnings"])
    assert "operator 9999" in found["ops"]
    result = call("prepare", newer, "-o", tmp_path / "out")
    assert result.code in (1, 3), result.err
    assert "defect" not in result.err


def test_a_model_without_a_version_is_read(tmp_path: Path) -> None:
    """The files of the Torch converter that the fixtures hold, from another build of MNN."""
    old = Path(__file__).parent / "data" / "torch-fixtures" / "conv-trace.mnn"
    found = call("inspect", old, "--json").document()
    assert found["details"]["source"] == "TORCH"
    assert found["signature"]["inputs"]


@pytest.mark.parametrize("cut", [0.2, 0.6, 0.95])
def test_a_truncated_file_is_refused(model: Path, cut: float, tmp_path: Path) -> None:
    data = model.read_bytes()
    short = tmp_path / "short.mnn"
    short.write_bytes(data[: int(len(data) * cut)])
    result = call("prepare", short, "-o", tmp_path / "out")
    assert result.code == 3, result.err
    assert "defect" not in result.err


def test_a_file_of_another_kind_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "model.mnn"
    path.write_bytes(b"\x00" * 400)
    assert call("prepare", path, "-o", tmp_path / "out").code == 3
    path.write_bytes(b"<html><body>sign in</body></html>")
    assert "HTML page" in call("prepare", path, "-o", tmp_path / "out").err


@pytest.mark.parametrize("damage", [b"\xff\xff\xff\x7f", b"\xff\xff\xff\xff"])
def test_offsets_that_leave_the_file_are_refused(model: Path, damage: bytes, tmp_path: Path) -> None:
    data = bytearray(model.read_bytes())
    place = root(data).place(OPLISTS)
    data[place : place + 4] = damage
    path = tmp_path / "damaged.mnn"
    path.write_bytes(data)
    with pytest.raises(RefusedError):
        read_summary(path)


def test_another_rank_or_dtype_is_a_wrong_call(model: Path, tmp_path: Path) -> None:
    for spec in ("x=float32[3,9,9]", "x=int32[1,3,9,9]"):
        result = call("prepare", model, "-o", tmp_path / "out", "--input", spec)
        assert result.code == 2, result.err


def test_a_changed_artifact_is_seen_by_its_weights(model: Path, tmp_path: Path) -> None:
    from mnnprep.formats.mnn_file.steps import compare_weights
    from mnnprep.model.messages import WeightsJob

    other = tmp_path / "other.mnn"
    data = bytearray(model.read_bytes())
    data[-40] ^= 1
    other.write_bytes(data)
    assert compare_weights(WeightsJob(model=str(model), source_model=str(model))).status is Status.PASSED
    assert compare_weights(WeightsJob(model=str(other), source_model=str(model))).status is Status.FAILED
