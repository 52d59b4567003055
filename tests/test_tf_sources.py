"""TensorFlow and Keras sources: what is taken, what is refused and how it is said, and the broken twins of
each check.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from evaluation.nets.real_models import fetch, fetch_directory
from evaluation.nets.tf_models import QUIET, built, needs_tensorflow
from mnnprep.bundle.manifest import Manifest
from mnnprep.commands.prepare import prepare
from mnnprep.errors import RefusedError, UsageError
from mnnprep.evidence.check import Status
from mnnprep.evidence.verdict import Verdict
from mnnprep.model.request import Request, make_wants

pytestmark = needs_tensorflow


@pytest.fixture(scope="session")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return built(tmp_path_factory.getbasetemp().parent)


def run(source: Path, target: Path, **options: object) -> Manifest:
    return prepare(Request(source=str(source), **options), target)  # type: ignore[arg-type]


def failed(manifest: Manifest) -> dict[str, str]:
    return {c.check: c.reason for c in manifest.evidence if c.status is Status.FAILED}


class TestSavedModels:
    def test_dict_outputs_keep_their_names_and_the_bytes_are_the_same_again(
        self, models: Path, tmp_path: Path
    ) -> None:
        """`alpha` is used on the way to `zulu`: it stays an output, in MNN too."""
        first = run(models / "dict-outputs", tmp_path / "a", method="freeze")
        assert first.verdict is Verdict.PROVEN
        assert [(t.name, t.mnn_name) for t in first.signature.outputs] == [
            ("alpha", "alpha"),
            ("zulu", "zulu"),
        ]
        assert first.signature.inputs[0].layout == "NHWC"
        assert {c.check for c in first.evidence if c.status is Status.PASSED} >= {
            "weights",
            "dimension:batch",
            "inference_mode",
        }
        run(models / "dict-outputs", tmp_path / "b", method="freeze")
        assert (tmp_path / "a/model.pb").read_bytes() == (tmp_path / "b/model.pb").read_bytes()
        assert (tmp_path / "a/manifest.json").read_bytes() == (tmp_path / "b/manifest.json").read_bytes()

    def test_training_mode_is_named(self, models: Path, tmp_path: Path) -> None:
        """The twin of the test above: the same net, saved as it is in training."""
        manifest = run(models / "training-mode", tmp_path / "out", method="freeze")
        assert manifest.verdict is Verdict.DIFFERS
        reason = next(
            c.reason for c in manifest.evidence if c.check == "inference_mode" and c.status is Status.FAILED
        )
        assert "FusedBatchNormV3" in reason
        assert "dropout" in reason
        assert "writes a variable" in reason

    def test_two_signatures(self, models: Path, tmp_path: Path) -> None:
        spatial = run(models / "two-signatures", tmp_path / "out", method="freeze", signature="spatial")
        assert spatial.verdict is Verdict.PROVEN
        assert [t.name for t in spatial.signature.outputs] == ["map"]
        assert all(
            len(d.proven) >= 3 for d in spatial.signature.dims.values()
        )  # height and width are dynamic
        for source, name in (("two-signatures", "nope"), ("no-default", "")):
            with pytest.raises(UsageError, match="no signature") as raised:
                run(models / source, tmp_path / "other", signature=name)
            assert "--signature" in raised.value.next
        with pytest.raises(RefusedError, match="no signature"):
            run(models / "no-signature", tmp_path / "other")

    def test_spatial_dimensions(self, models: Path, tmp_path: Path) -> None:
        wants = make_wants(dims=("image_1=12:24", "image_2=16:18"))
        manifest = run(models / "dynamic", tmp_path / "out", wants=wants, method="freeze")
        assert manifest.verdict is Verdict.PROVEN
        assert {12, 24} <= set(manifest.signature.dims["image_1"].proven)

    def test_a_baked_spatial_dimension_is_named(self, models: Path, tmp_path: Path) -> None:
        """The twin of the test above: the range is not the source's own.

        Where nobody claims one, the one size that runs proves no dimension.
        """
        manifest = run(
            models / "baked", tmp_path / "out", wants=make_wants(dims=("image_1=12:24",)), method="freeze"
        )
        assert manifest.verdict is Verdict.UNPROVEN
        check = next(c for c in manifest.evidence if c.check == "dimension:image_1")
        assert (check.status, check.subject) == (Status.NOT_RUN, "image_1")
        assert "the source itself refuses 12" in check.reason
        assert "--dim image_1=15:16" in check.reason
        manifest = run(models / "baked", tmp_path / "undeclared", method="freeze")
        assert manifest.verdict is Verdict.UNPROVEN
        lacking = {
            c.subject
            for c in manifest.evidence
            if c.check.startswith("dimension:") and c.status is Status.NOT_RUN
        }
        assert lacking == {"image_1", "image_2"}

    @pytest.mark.slow
    def test_weights_that_protobuf_can_not_hold(self, models: Path, tmp_path: Path) -> None:
        """With limits of some hundred bytes in place of 2 GiB: the graph is refused with the way out, and
        that way is open.
        """
        program = Path(__file__).parent / "support" / "programs" / "large_graph.py"
        command = [sys.executable, str(program), str(models / "dict-outputs"), str(tmp_path)]
        done = subprocess.run(command, env=os.environ | QUIET, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr[-2000:]
        freeze, onnx = done.stdout.strip().splitlines()
        assert "2 GiB" in freeze
        assert "--to onnx" in freeze
        assert onnx == "onnx model.onnx model.onnx.data"

    def test_a_table_is_refused_by_its_operator(self, models: Path, tmp_path: Path) -> None:
        with pytest.raises(RefusedError) as raised:
            run(models / "table", tmp_path / "out")
        assert "LookupTableFindV2" in raised.value.seen

    @pytest.mark.slow
    def test_a_loop_is_frozen_with_its_variables(self, models: Path, tmp_path: Path) -> None:
        """The frozen graph computes what the source does; that MNN has no While is said."""
        manifest = run(models / "loop", tmp_path / "out", method="freeze")
        checks = {c.check: c for c in manifest.evidence}
        assert checks["artifact_compare"].status is Status.PASSED
        assert checks["weights"].status is Status.PASSED
        assert "While" in checks["mnn_convert"].reason


class TestGraphs:
    def test_nothing_to_do_changes_nothing(self, models: Path, tmp_path: Path) -> None:
        manifest = run(models / "plain.pb", tmp_path / "out")
        assert manifest.verdict is Verdict.PROVEN
        assert (tmp_path / "out/model.pb").read_bytes() == (models / "plain.pb").read_bytes()

    @pytest.mark.parametrize("name", ["stuck.pb", "stuck-by-default.pb"])
    def test_batch_norm_in_training_for_good(self, models: Path, tmp_path: Path, name: str) -> None:
        """The twin of the test above."""
        manifest = run(models / name, tmp_path / "out", method="freeze")
        assert manifest.verdict is Verdict.DIFFERS
        assert "is_training" in failed(manifest)["inference_mode"]

    def test_is_training_is_resolved(self, models: Path, tmp_path: Path) -> None:
        manifest = run(models / "fed.pb", tmp_path / "out", outputs=("features", "score"), method="freeze")
        assert manifest.verdict is Verdict.PROVEN
        assert [t.name for t in manifest.signature.inputs] == ["x"]
        assert [t.name for t in manifest.signature.outputs] == ["features", "score"]
        assert "is_training" in manifest.artifact.attempts[0].notes[0]

    def test_an_unfrozen_graph_is_refused_and_its_checkpoint_taken(
        self, models: Path, tmp_path: Path
    ) -> None:
        with pytest.raises(RefusedError, match="not frozen") as raised:
            run(models / "unfrozen.pb", tmp_path / "out")
        assert "VariableV2 kernel" in raised.value.seen
        assert "VarHandleOp offset" in raised.value.seen
        with pytest.raises(UsageError) as asked:
            run(models / "checkpoint/model.ckpt.meta", tmp_path / "out")
        assert asked.value.seen == "score"
        assert "--outputs" in asked.value.next
        manifest = run(
            models / "checkpoint/model.ckpt.meta", tmp_path / "out", outputs=("score",), method="freeze"
        )
        assert manifest.verdict is Verdict.PROVEN

    def test_an_unknown_output(self, models: Path, tmp_path: Path) -> None:
        with pytest.raises(UsageError, match="no node nope"):
            run(models / "plain.pb", tmp_path / "out", outputs=("nope",))

    def test_options_that_do_not_fit(self, models: Path, tmp_path: Path) -> None:
        with pytest.raises(UsageError, match="--signature"):
            run(models / "plain.pb", tmp_path / "out", signature="serving_default")
        with pytest.raises(UsageError, match="--outputs"):
            run(models / "dict-outputs", tmp_path / "out", outputs=("y",))
        with pytest.raises(UsageError, match="int8"):
            run(models / "plain.pb", tmp_path / "out", to="tf", tflite_precision="int8")


class TestKeras:
    @pytest.mark.parametrize("name", ["net.keras", "no-suffix"])
    def test_a_file_is_proven(self, models: Path, tmp_path: Path, name: str) -> None:
        manifest = run(models / name, tmp_path / "out")
        assert (manifest.verdict, manifest.artifact.method) == (Verdict.PROVEN, "freeze")
        assert [t.name for t in manifest.signature.outputs] == ["score", "pool"]

    @pytest.mark.slow
    def test_a_recurrent_net_goes_by_onnx(self, models: Path, tmp_path: Path) -> None:
        """MNN's TensorFlow frontend has no While, and its nodes are named; tf2onnx makes the loop an LSTM."""
        manifest = run(models / "lstm.keras", tmp_path / "out", wants=make_wants(dims=("ids_1=4:12",)))
        assert (manifest.verdict, manifest.artifact.method) == (Verdict.PROVEN, "onnx")
        assert "While functional" in manifest.artifact.attempts[0].reason
        assert {4, 12} <= set(manifest.signature.dims["ids_1"].proven)

    @pytest.mark.slow
    def test_a_recurrent_net_that_no_method_expresses(self, models: Path, tmp_path: Path) -> None:
        """Each method names the node that holds it back; no path of this machine is in what it says."""
        manifest = run(models / "gru.keras", tmp_path / "out")
        assert manifest.verdict is not Verdict.PROVEN
        reasons = {a.method: a.reason for a in manifest.artifact.attempts}
        assert "While " in reasons["freeze"]
        assert "gru" in reasons["onnx"]
        assert "TensorListReserve" in reasons["tflite"]
        assert str(Path("/tmp")) not in (tmp_path / "out/manifest.json").read_text()

    def test_weights_alone(self, models: Path, tmp_path: Path) -> None:
        with pytest.raises(UsageError, match="weights only") as raised:
            run(models / "only.weights.h5", tmp_path / "out")
        assert "--weights" in raised.value.next

    def test_a_lambda_needs_trust(self, models: Path, tmp_path: Path) -> None:
        with pytest.raises(RefusedError, match="Lambda") as raised:
            run(models / "lambda.keras", tmp_path / "out")
        assert raised.value.seen.startswith("Lambda twice holds a Python function")
        assert "--trust" in raised.value.next

    def test_a_damaged_file(self, models: Path, tmp_path: Path) -> None:
        (tmp_path / "cut.h5").write_bytes((models / "net.h5").read_bytes()[:3000])
        with pytest.raises(RefusedError, match="can't be read"):
            run(tmp_path / "cut.h5", tmp_path / "out")

    @pytest.mark.slow
    def test_float16_and_int8(self, models: Path, tmp_path: Path) -> None:
        """float16 is proven at 50 dB; MNN computes an int8 model wrongly, and that is seen. int8 without
        samples is refused.
        """
        half = run(models / "net.keras", tmp_path / "half", to="tflite", tflite_precision="float16")
        assert half.tolerance.sqnr_db == 50.0
        assert next(c for c in half.evidence if c.check == "artifact_compare").status is Status.PASSED
        with pytest.raises(RefusedError, match="no method made an artifact") as raised:
            run(models / "net.keras", tmp_path / "whole", to="tflite", tflite_precision="int8")
        assert "--samples" in raised.value.seen


FACTORY = """
import keras

def build(classes: int = 3):
    image = keras.Input((12, 12, 3), name="image")
    x = keras.layers.Conv2D(6, 3, activation="relu", name="conv")(image)
    x = keras.layers.Dropout(0.5)(x)
    x = keras.layers.GlobalAveragePooling2D(name="pool")(x)
    return keras.Model(image, [keras.layers.Dense(classes, name="score")(x), x])
"""


def test_a_factory_with_weights(models: Path, tmp_path: Path) -> None:
    (tmp_path / "net.py").write_text(FACTORY)
    source = f"{tmp_path}/net.py:build"
    manifest = prepare(Request(source=source, weights=str(models / "only.weights.h5")), tmp_path / "out")
    assert (manifest.source.kind, manifest.verdict) == ("tf-factory", Verdict.PROVEN)
    with pytest.raises(UsageError, match="don't fit"):
        prepare(
            Request(source=source, weights=str(models / "only.weights.h5"), factory_args={"classes": "5"}),
            tmp_path / "other",
        )


@pytest.mark.real
class TestRealModels:
    def test_basic_pitch_by_the_onnx_route(self, tmp_path: Path) -> None:
        manifest = run(fetch_directory("basic-pitch-saved-model"), tmp_path / "out")
        assert (manifest.verdict, manifest.artifact.method) == (Verdict.PROVEN, "onnx")
        assert "DivNoNan" in manifest.artifact.attempts[0].reason

    def test_fer_hdf5(self, tmp_path: Path) -> None:
        manifest = run(fetch("fer.hdf5"), tmp_path / "out")
        assert (manifest.verdict, manifest.artifact.method) == (Verdict.PROVEN, "freeze")

    def test_guesslang_is_refused_for_its_text(self, tmp_path: Path) -> None:
        with pytest.raises(RefusedError, match="input inputs") as raised:
            run(fetch_directory("guesslang-saved-model"), tmp_path / "out")
        assert "string" in raised.value.seen

    def test_deepbrain_reads_a_data_pipeline(self, tmp_path: Path) -> None:
        with pytest.raises(RefusedError, match="data pipeline") as raised:
            run(fetch("deepbrain.pb"), tmp_path / "out")
        assert "IteratorGetNext" in raised.value.seen
        assert raised.value.next.endswith("--outputs prob")

    @pytest.mark.slow
    def test_deepbrain_at_its_probability(self, tmp_path: Path) -> None:
        """Its convolutions crash MNN's TensorFlow frontend; by ONNX its pools would, and are repaired."""
        wants = make_wants(ranges=("img=0.4:0.6",), dims=("batch=1:2",))
        manifest = run(fetch("deepbrain.pb"), tmp_path / "out", outputs=("prob",), wants=wants, to="onnx")
        assert manifest.verdict is Verdict.PROVEN
        assert [(r.rule, len(r.nodes)) for r in manifest.artifact.repairs] == [("max-pool-3d", 3)]


@pytest.mark.parametrize(
    "text", ["import tensorflow as tf", "from keras import layers", "import torch, keras", "x = 1"]
)
def test_a_factorys_framework_is_read_from_its_imports(tmp_path: Path, text: str) -> None:
    from mnnprep.formats.factory import factory_kind

    (tmp_path / "net.py").write_text(text)
    expected = "torch-factory" if "torch" in text or text == "x = 1" else "tf-factory"
    assert factory_kind(str(tmp_path / "net.py"), []) == expected
    shutil.copy(tmp_path / "net.py", tmp_path / "other.py")
    assert factory_kind("other", [str(tmp_path)]) == expected
