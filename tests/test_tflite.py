"""TFLite: read in place, proven as it is or by ONNX, refused by operator."""

from __future__ import annotations

import struct
from pathlib import Path

import flatbuffers
import numpy as np
import pytest

from evaluation.nets.real_models import fetch
from evaluation.nets.tf_models import built, needs_tensorflow
from mnnprep.bundle.usage import python_snippet
from mnnprep.commands.inspect import read_file
from mnnprep.commands.prepare import prepare
from mnnprep.commands.verify import verify
from mnnprep.comparison.folded_weights import account
from mnnprep.errors import RefusedError
from mnnprep.evidence.verdict import Verdict
from mnnprep.formats.tflite.biases import with_real_scales
from mnnprep.formats.tflite.dense import made_dense
from mnnprep.formats.tflite.scan import constants, scan_model
from mnnprep.model.precision import make_precision
from mnnprep.model.request import Request
from mnnprep.wire.flatbuffer import FlatbufferError, root, table_at


@pytest.fixture(scope="session")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return built(tmp_path_factory.getbasetemp().parent)


@needs_tensorflow
class TestSmallModels:
    def test_a_float_model_as_it_is(self, models: Path, tmp_path: Path) -> None:
        manifest = prepare(Request(source=str(models / "float.tflite")), tmp_path / "out")
        assert (manifest.verdict, manifest.artifact.method) == (Verdict.PROVEN, "copy")
        assert (tmp_path / "out/model.tflite").read_bytes() == (models / "float.tflite").read_bytes()

    def test_a_quantized_model_is_dequantized(self, models: Path, tmp_path: Path) -> None:
        """As it is, MNN computes it wrongly: seen. Without its quantization it is proven, at 30 dB."""
        manifest = prepare(Request(source=str(models / "dynamic-range.tflite")), tmp_path / "out")
        assert [(a.method, a.verdict) for a in manifest.artifact.attempts] == [
            ("copy", "differs"),
            ("onnx", "proven"),
        ]
        assert manifest.tolerance.sqnr_db == 30.0
        assert "dequantized" in manifest.artifact.attempts[1].notes[0]
        compared = next(c for c in manifest.evidence if c.check == "artifact_compare")
        assert float(str(compared.numbers["sqnr_db:Identity"])) >= 30.0
        assert manifest.artifact.sqnr_db == 30.0
        assert verify(tmp_path / "out").verdict is Verdict.PROVEN

    @pytest.mark.parametrize("name", ["gelu", "gelu-tanh", "elu"])
    def test_what_mnn_does_not_read_comes_by_onnx(self, models: Path, tmp_path: Path, name: str) -> None:
        """MNN's TFLite frontend has neither; LiteRT's reference kernels lack ELU, tf2onnx GELU."""
        assert name.partition("-")[0].upper() in scan_model(models / f"{name}.tflite").ops
        manifest = prepare(Request(source=str(models / f"{name}.tflite")), tmp_path / "out")
        assert [(a.method, a.verdict) for a in manifest.artifact.attempts] == [
            ("copy", "refused"),
            ("onnx", "proven"),
        ]

    def test_fewer_bits_of_a_dequantized_model(self, models: Path, tmp_path: Path) -> None:
        """The converted model must reach the lower of the two; the artifact its own."""
        asked = make_precision(weight_bits=8, budget=20.0)
        manifest = prepare(
            Request(source=str(models / "dynamic-range.tflite"), to="onnx", precision=asked), tmp_path / "out"
        )
        assert (manifest.verdict, manifest.tolerance.sqnr_db, manifest.artifact.sqnr_db) == (
            Verdict.PROVEN,
            20.0,
            30.0,
        )
        assert verify(tmp_path / "out").verdict is Verdict.PROVEN

    @pytest.mark.slow
    def test_an_integer_boundary_stays(self, models: Path, tmp_path: Path) -> None:
        """Quantized integers in and out; MNN computes in floats, with every rounding, to the step."""
        manifest = prepare(Request(source=str(models / "int8-boundary.tflite"), to="onnx"), tmp_path / "out")
        assert manifest.verdict is Verdict.PROVEN
        assert manifest.tolerance.sqnr_db is None
        (tensor,) = manifest.signature.inputs
        assert (tensor.dtype, tensor.mnn_dtype, tensor.range) == ("int8", "int8", [-128, 127])
        assert tensor.quantization is not None
        assert f"a number is {tensor.quantization.scale:.9g} x" in python_snippet(manifest)
        assert "F.cast(inputs[-1], F.int8)" in python_snippet(manifest)
        assert {step.size for step in manifest.tolerance.steps.values()} == {1.0}
        assert verify(tmp_path / "out").verdict is Verdict.PROVEN

    def test_a_bias_has_the_scale_that_the_kernels_take(self, models: Path) -> None:
        """A file may state another one; the integers of the bias count in steps of input times weight."""
        content = (models / "int8-boundary.tflite").read_bytes()
        assert with_real_scales(content) == content
        scales = sorted({s for q in scan_model(models / "int8-boundary.tflite").quantized for s in q.scale})
        spoilt = bytearray(content)
        for bias in (q for q in scan_model(models / "int8-boundary.tflite").quantized if q.dtype == "int32"):
            old = struct.pack(f"<{len(bias.scale)}f", *bias.scale)
            assert content.count(old) >= 1
            place = content.index(old)
            struct.pack_into(f"<{len(bias.scale)}f", spoilt, place, *(2 * s for s in bias.scale))
        assert scales
        assert bytes(spoilt) != content
        assert with_real_scales(bytes(spoilt)) == content

    def test_quantization_is_read(self, models: Path) -> None:
        summary = scan_model(models / "dynamic-range.tflite")
        assert {q.kind for q in summary.quantized} >= {"per-channel"}
        assert all(q.dtype == "int8" for q in summary.quantized)
        found = read_file(models / "int8.tflite")
        assert any("per-tensor" in line for line in found.details["quantization"])
        assert found.signature.inputs[0].shape == (1, 16, 16, 3)
        real, stored = constants(models / "float.tflite"), constants(models / "dynamic-range.tflite")
        kernel = next(a for a in real.values() if a.shape == (64, 16))
        close = [a for a in stored.values() if a.shape == kernel.shape]
        assert close
        assert np.abs(close[0] - kernel).max() <= np.abs(kernel).max() / 127

    def test_sparse_weights_are_made_dense(self, models: Path, tmp_path: Path) -> None:
        """MNN has no DENSIFY; the dense file computes the same, and holds the weights that were pruned."""
        source = models / "sparse.tflite"
        assert scan_model(source).ops["DENSIFY"] == 2
        manifest = prepare(Request(source=str(source)), tmp_path / "out")
        assert (manifest.verdict, manifest.artifact.method) == (Verdict.PROVEN, "copy")
        assert "made dense" in manifest.artifact.attempts[0].notes[0]
        assert "DENSIFY" not in scan_model(tmp_path / "out/model.tflite").ops
        pruned = np.load(models / "sparse.npz")
        stored = {a.shape: a for a in constants(tmp_path / "out/model.tflite").values()}
        np.testing.assert_array_equal(stored[64, 3, 3, 3], pruned["kernel"].transpose(3, 0, 1, 2))
        np.testing.assert_array_equal(stored[64, 64], pruned["dense"].T)

    def test_sparse_weights_in_half_precision(self, models: Path) -> None:
        pruned = np.load(models / "sparse.npz")["dense"].T.astype("f2")
        (models / "made-dense.tflite").write_bytes(made_dense((models / "sparse-half.tflite").read_bytes()))
        assert any(
            a.shape == (64, 64) and np.array_equal(a, pruned)
            for a in constants(models / "made-dense.tflite").values()
        )

    def test_sparsity_that_does_not_fit_is_refused(self, models: Path) -> None:
        from ai_edge_litert import schema_py_generated as schema

        model = schema.ModelT.InitFromPackedBuf((models / "sparse.tflite").read_bytes(), 0)
        tensor = next(t for t in model.subgraphs[0].tensors if t.sparsity is not None)
        tensor.sparsity.traversalOrder = [0, 0]
        builder = flatbuffers.Builder(1024)
        builder.Finish(model.Pack(builder), file_identifier=b"TFL3")
        with pytest.raises(RefusedError, match="sparsity"):
            made_dense(bytes(builder.Output()))

    def test_a_truncated_model(self, models: Path, tmp_path: Path) -> None:
        (tmp_path / "cut.tflite").write_bytes((models / "float.tflite").read_bytes()[:600])
        with pytest.raises(RefusedError, match="truncated"):
            prepare(Request(source=str(tmp_path / "cut.tflite")), tmp_path / "out")


@pytest.mark.real
class TestRealModels:
    @needs_tensorflow
    @pytest.mark.parametrize("name", ["basic-pitch.tflite", "fer.tflite"])
    def test_proven_by_the_onnx_route(self, tmp_path: Path, name: str) -> None:
        manifest = prepare(Request(source=str(fetch(name))), tmp_path / "out")
        assert (manifest.verdict, manifest.artifact.method) == (Verdict.PROVEN, "onnx")
        assert manifest.artifact.attempts[0].verdict == "refused"

    @pytest.mark.parametrize("name", ["alexa", "hey_jarvis", "okay_nabu"])
    def test_state_is_refused_by_its_operators(self, tmp_path: Path, name: str) -> None:
        path = fetch(f"wakeword-{name}.tflite")
        with pytest.raises(RefusedError, match="keeps state") as raised:
            prepare(Request(source=str(path)), tmp_path / "out")
        assert "VAR_HANDLE" in raised.value.seen
        assert any("VAR_HANDLE" in w for w in read_file(path).warnings)


def test_a_flatbuffer_that_points_outside_is_an_error() -> None:
    with pytest.raises(FlatbufferError):
        root(struct.pack("<I", 400))
    with pytest.raises(FlatbufferError):
        table_at(struct.pack("<i", 100), 0)


class TestFoldedWeights:
    """A batch norm folded into the kernel before it: the factor is found, a change is seen."""

    @pytest.fixture
    def folded(
        self,
    ) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray], dict[str, tuple[np.ndarray, list[str]]]]:
        random = np.random.default_rng(0)
        kernel = random.standard_normal((3, 3, 4, 6)).astype("f4")
        gamma, beta, mean, variance = (random.uniform(0.5, 2, 6).astype("f4") for _ in range(4))
        scale = gamma / np.sqrt(variance + np.float32(1e-3))
        shift = beta - mean * scale
        source = {"kernel": kernel, "gamma": gamma, "beta": beta, "mean": mean, "variance": variance}
        artifact = {"w": np.ascontiguousarray((kernel * scale).transpose(3, 0, 1, 2)), "b": shift}
        return (
            source,
            artifact,
            {
                "scale": (scale, ["gamma", "variance"]),
                "shift": (shift, ["gamma", "beta", "mean", "variance"]),
            },
        )

    def test_found(self, folded: tuple[dict, dict, dict]) -> None:
        source, artifact, derived = folded
        assert account(source, artifact, derived) == set(source)

    def test_one_changed_element_is_seen(self, folded: tuple[dict, dict, dict]) -> None:
        source, artifact, derived = folded
        artifact["w"][2, 1, 1, 3] *= 1.01
        assert "kernel" not in account(source, artifact, derived)

    def test_another_shift_is_seen(self, folded: tuple[dict, dict, dict]) -> None:
        source, artifact, derived = folded
        artifact["b"] = artifact["b"] + np.float32(1e-3)
        assert account(source, artifact, derived) == {"kernel", "gamma", "variance"}

    def test_what_scaled_the_inputs_too(self, folded: tuple[dict, dict, dict]) -> None:
        """A normalization before the convolution goes into its kernel; a change of it is seen."""
        source, artifact, derived = folded
        source["deviation"] = np.array([0.5, 2, 3, 0.7], "f4")
        artifact["w"] = artifact["w"] * source["deviation"]
        assert account(source, artifact, derived) == set(source)
        source["deviation"] = np.array([0.5, 2, 3.001, 0.7], "f4")
        assert not {"kernel", "deviation"} & account(source, artifact, derived)

    def test_a_number_that_the_source_has(self, folded: tuple[dict, dict, dict]) -> None:
        """A rescaling of the image goes into the kernel; one by another number is seen."""
        source, artifact, derived = folded
        artifact["w"] = artifact["w"] * np.float32(1 / 255)
        assert "kernel" not in account(source, artifact, derived)
        assert account(source, artifact, derived | {"rescaling": (np.array(1 / 255, "f4"), [])}) == set(
            source
        )
        assert "kernel" not in account(
            source, artifact, derived | {"rescaling": (np.array(1 / 127, "f4"), [])}
        )

    def test_ones_leave_no_trace(self, folded: tuple[dict, dict, dict]) -> None:
        source, artifact, derived = folded
        source["gain"] = np.ones(4, "f4")
        assert account(source, artifact, derived) == set(source)
        source["gain"] = np.array([1, 1, 1, 1.001], "f4")
        assert "gain" not in account(source, artifact, derived)

    def test_a_sign_is_seen(self, folded: tuple[dict, dict, dict]) -> None:
        source, artifact, derived = folded
        artifact["w"] = -artifact["w"]
        assert "kernel" not in account(source, artifact, derived)
