"""inspect reads SavedModels, graphs and Keras files from their bytes: what it says is what TensorFlow saved,
and TensorFlow is not imported.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from evaluation.nets.tf_models import built, needs_tensorflow
from mnnprep.commands.inspect import read_file
from mnnprep.errors import RefusedError, UsageError
from mnnprep.formats.tensor_info import TensorInfo

pytestmark = needs_tensorflow


@pytest.fixture(scope="session")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return built(tmp_path_factory.getbasetemp().parent)


def test_a_saved_model(models: Path) -> None:
    found = read_file(models / "dict-outputs")
    assert found.signature.inputs == (TensorInfo("image", "float32", (None, 16, 16, 3)),)
    assert found.signature.outputs == (
        TensorInfo("alpha", "float32", (None, 8)),
        TensorInfo("zulu", "float32", (None, 4)),
    )
    assert (found.ops["Conv2D"], found.ops["FusedBatchNormV3"]) == (1, 1)
    assert found.parameters == 3 * 3 * 3 * 8 + 4 * 8 + 8 * 4
    assert not found.leftovers
    assert found.details["signatures"] == {"serving_default": "image -> alpha, zulu"}


def test_training_is_told_by_its_nodes(models: Path) -> None:
    left = read_file(models / "training-mode").leftovers
    for part in ("FusedBatchNormV3", "writes a variable", "dropout mask"):
        assert any(part in line for line in left)
    assert read_file(models / "stuck-by-default.pb").leftovers == read_file(models / "stuck.pb").leftovers
    assert read_file(models / "stuck.pb").leftovers == (
        "FusedBatchNormV3 FusedBatchNormV3: is_training is set",
    )
    assert not read_file(models / "plain.pb").leftovers


def test_signatures_and_what_stands_in_the_way(models: Path) -> None:
    assert set(read_file(models / "two-signatures").details["signatures"]) == {"serving_default", "spatial"}
    assert any("LookupTableFindV2" in w for w in read_file(models / "table").warnings)
    assert any("no signature" in w for w in read_file(models / "no-signature").warnings)
    assert any(
        "not frozen" in w and "VarHandleOp offset" in w for w in read_file(models / "unfrozen.pb").warnings
    )


def test_a_loops_body_is_counted(models: Path) -> None:
    found = read_file(models / "loop")
    assert (found.ops["While"], found.ops["Tanh"], found.parameters) == (1, 1, 20 * 8 + 8 * 8)


def test_a_graph_and_a_checkpoint(models: Path) -> None:
    found = read_file(models / "plain.pb")
    assert found.signature.inputs == (TensorInfo("x", "float32", (None, 8, 8, 2)),)
    assert [t.name for t in found.signature.outputs] == ["y"]
    checkpoint = read_file(models / "checkpoint/model.ckpt.meta")
    assert checkpoint.parameters == 3 * 3 * 2 * 4 + 4
    assert not checkpoint.leftovers


@pytest.mark.parametrize("name", ["net.keras", "net.h5", "no-suffix"])
def test_keras_files(models: Path, name: str) -> None:
    found = read_file(models / name)
    assert found.signature.inputs == (TensorInfo("image", "float32", (None, 12, 12, 3)),)
    assert [t.name for t in found.signature.outputs] == ["score", "pool"]
    assert found.ops == {"Conv2D": 1, "Dense": 1, "Dropout": 1, "GlobalAveragePooling2D": 1, "InputLayer": 1}
    assert found.parameters == 3 * 3 * 3 * 6 + 6 + 6 * 3 + 3


def test_code_and_weights_alone(models: Path) -> None:
    assert any("twice" in w and "--trust" in w for w in read_file(models / "lambda.keras").warnings)
    with pytest.raises(UsageError, match="weights only"):
        read_file(models / "only.weights.h5")


def test_damage_is_an_error(models: Path, tmp_path: Path) -> None:
    content = (models / "plain.pb").read_bytes()
    (tmp_path / "cut.pb").write_bytes(content[:-200])
    with pytest.raises(RefusedError):
        read_file(tmp_path / "cut.pb")
    (tmp_path / "saved").mkdir()
    (tmp_path / "saved/saved_model.pb").write_bytes(
        (models / "dict-outputs/saved_model.pb").read_bytes()[:-50]
    )
    with pytest.raises(RefusedError, match="damaged"):
        read_file(tmp_path / "saved")


def test_tensorflow_is_not_imported(models: Path) -> None:
    code = "import sys; from mnnprep.commands.inspect import read_file as i\n"
    code += (
        "for n in ('dict-outputs', 'plain.pb', 'net.keras', 'net.h5', 'checkpoint/model.ckpt.meta'):"
        f" i({str(models)!r} + '/' + n)\n"
    )
    code += "assert not {'tensorflow', 'keras', 'tf_keras'} & set(sys.modules), 'imported'"
    done = subprocess.run(
        [sys.executable, "-c", code], env=os.environ, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
