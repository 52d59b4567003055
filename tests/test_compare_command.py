"""`compare`: any two models on the same cases."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

from evaluation.nets.caffe_nets import NETS
from evaluation.nets.caffe_nets import write as write_pair
from evaluation.nets.mnn_models import floats, matmul, node, save
from evaluation.nets.real_models import fetch, fetch_directory
from evaluation.nets.tf_models import built, needs_tensorflow
from mnnprep.cli.compare import command
from mnnprep.commands.compare import compare, match_outputs
from mnnprep.errors import RefusedError
from mnnprep.evidence.verdict import Verdict
from mnnprep.model.signature import parse_input
from mnnprep.reference.replay import match_specs
from support.command import prepared


class TestMatching:
    def test_by_name_then_shape_then_values(self) -> None:
        a, b, c = np.zeros((2, 3), "f4"), np.ones((2, 3), "f4"), np.zeros((2, 5), "f4")
        names, matched = match_outputs({"p": a, "q": b, "r": c, "s": c}, {"0": b, "1": a, "2": c, "s": c})
        assert names == {"p": "1", "q": "0", "r": "2", "s": "s"}
        assert matched == {"p": "values", "q": "values", "r": "shape", "s": "name"}

    def test_what_fits_nothing_is_compared_by_place(self) -> None:
        names, matched = match_outputs({"p": np.zeros(3)}, {"0": np.zeros(4)})
        assert (names, matched) == ({"p": "0"}, {"p": "place"})

    def test_what_has_no_partner_is_left_out(self) -> None:
        a, b = np.zeros((2, 3), "f4"), np.ones(5, "f4")
        assert match_outputs({"p": a, "q": b}, {"0": b}) == ({"q": "0"}, {"q": "shape"})
        assert match_outputs({"p": a}, {"p": a, "more": b}) == ({"p": "p"}, {"p": "name"})

    def test_inputs(self) -> None:
        ours = [parse_input("a=float32[batch,4]"), parse_input("b=int64[batch]")]
        assert match_specs(ours, [parse_input("y=int64[n]"), parse_input("x=float32[2,4]")], "input") == {
            "a": "x",
            "b": "y",
        }
        with pytest.raises(RefusedError, match="fits a"):
            match_specs(ours[:1], [parse_input("x=float32[batch,5]")], "input")


@needs_tensorflow
class TestSmallModels:
    @pytest.fixture(scope="class")
    @classmethod
    def models(cls, tmp_path_factory: pytest.TempPathFactory) -> Path:
        return built(tmp_path_factory.getbasetemp().parent)

    def test_the_same_net_in_two_files(self, models: Path) -> None:
        runner = CliRunner()
        done = runner.invoke(
            command, [str(models / "net.keras"), str(models / "net.h5"), "--json"], standalone_mode=False
        )
        assert done.return_value == 0, done.output
        assert json.loads(done.stdout)["verdict"] == "proven"

    def test_two_nets_differ(self, models: Path) -> None:
        """The twin: the same architecture with a layer that doubles."""
        found = compare(str(models / "net.keras"), str(models / "lambda.keras"), trust=True)
        assert found.verdict is Verdict.DIFFERS

    def test_signatures_that_do_not_fit(self, models: Path) -> None:
        with pytest.raises(RefusedError, match="no input of the second model fits"):
            compare(str(models / "float.tflite"), str(models / "net.h5"))


def test_a_model_and_what_mnn_made_of_it(tmp_path: Path) -> None:
    matmul(tmp_path / "net.onnx")
    bundle = tmp_path / "out"
    assert prepared(tmp_path / "net.onnx", bundle).verdict is Verdict.PROVEN
    found = compare(str(tmp_path / "net.onnx"), str(bundle / "model.mnn"))
    assert (found.verdict, found.second) == (Verdict.PROVEN, "mnn")


@pytest.mark.parametrize(
    ("first", "second", "problem"),
    [("two", "one", "the output is missing"), ("one", "two", "the reference does not have")],
)
def test_an_output_that_only_one_of_them_has(tmp_path: Path, first: str, second: str, problem: str) -> None:
    nodes = [node("Relu", ["x"], ["y"]), node("Neg", ["x"], ["z"])]
    for count, name in enumerate(("one", "two"), start=1):
        save(
            tmp_path / f"{name}.onnx",
            nodes[:count],
            [floats("x", 2, 3)],
            [floats("y", 2, 3), floats("z", 2, 3)][:count],
        )
    found = compare(str(tmp_path / f"{first}.onnx"), str(tmp_path / f"{second}.onnx"))
    assert found.verdict is Verdict.DIFFERS
    assert found.outputs == {"y": "y"}
    assert any(e.output == "z" and problem in e.problem for c in found.evidence for e in c.outputs)


def test_a_caffe_pair_and_its_other_forms(tmp_path: Path) -> None:
    pytest.importorskip("cv2")
    pair = write_pair(tmp_path, NETS["convolution"])
    assert prepared(pair, tmp_path / "out", "--to", "onnx").verdict is Verdict.PROVEN
    onnx = str(next((tmp_path / "out").glob("*.onnx")))
    for first, second in ((str(pair), onnx), (onnx, str(pair))):
        assert compare(first, second).verdict is Verdict.PROVEN
    other = write_pair(tmp_path / "other", NETS["convolution"], seed=1)
    assert compare(onnx, str(other)).verdict is Verdict.DIFFERS


@pytest.mark.real
@pytest.mark.slow
@needs_tensorflow
def test_basic_pitch_in_three_formats() -> None:
    saved, lite, onnx = (
        str(fetch_directory("basic-pitch-saved-model")),
        str(fetch("basic-pitch.tflite")),
        str(fetch("basic-pitch.onnx")),
    )
    for first, second in ((saved, lite), (lite, onnx), (saved, onnx)):
        found = compare(first, second)
        assert found.verdict is Verdict.PROVEN
        assert len(found.outputs) == 3
