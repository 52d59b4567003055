"""The benchmarks and evaluations run, and the zoo's verdicts hold for one net of each kind."""

import ast
import importlib.util
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from evaluation.places import ROOT

PROGRAMS = [path for name in ("benchmarks", "evaluation") for path in sorted((ROOT / name).rglob("*.py"))]
pytest.importorskip("torch")


@pytest.mark.parametrize("path", PROGRAMS, ids=lambda p: str(p.relative_to(ROOT)))
def test_what_a_program_takes_from_mnnprep_is_there(path: Path) -> None:
    """Imports inside functions too, which nothing else looks at."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("mnnprep"):
            module = importlib.import_module(str(node.module))
            for alias in node.names:
                assert hasattr(module, alias.name) or importlib.util.find_spec(
                    f"{node.module}.{alias.name}"
                ), alias.name


@pytest.mark.slow
@pytest.mark.parametrize("net", ["bert_sdpa", "llama", "vit", "resnet", "wav2vec2"])
def test_a_net_of_the_zoo_is_proven(net: str) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "evaluation.zoo", "--only", net],
        capture_output=True,
        text=True,
        timeout=900,
        cwd=ROOT,
    )
    assert "1 of 1 proven" in done.stdout, done.stdout + done.stderr


@pytest.mark.slow
def test_prepare_is_measured_against_the_script_a_user_writes() -> None:
    command = [sys.executable, "-m", "benchmarks.prepare", "--only", "plain_mobilenet", "--rounds", "1"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=900, cwd=ROOT)
    assert "1 of 1 nets compared" in done.stdout, done.stdout + done.stderr
    assert "proven; script: ran" in done.stdout


class TestFaults:
    """The fault benchmark's own judgement: it must be able to say that a fault was missed."""

    def test_the_distance_of_two_runs(self) -> None:
        from evaluation.faults.judge import ANOTHER, distance

        ref = np.array([1.0, -2.0, 0.5])
        assert distance([ref], [ref]) == 0.0
        assert distance([ref], [ref + np.array([0, 0, 3 * (2e-4 + 5e-4)])]) == pytest.approx(3.0)
        assert (
            distance([ref], [ref[:2]])
            == distance([ref], [])
            == distance([ref], [np.array([1.0, np.nan, 0.5])])
            == ANOTHER
        )
        assert distance([np.array([1, 2])], [np.array([1, 3])]) == ANOTHER

    def test_inputs_are_within_what_is_declared(self) -> None:
        from evaluation.faults.judge import searched

        for arrays in searched(("x=float32[batch,3]", "i=int64[batch]"), ("batch=1:4",), ("x=0:1", "i=0:9")):
            assert arrays["x"].dtype == np.float32
            assert arrays["x"].min() >= 0
            assert arrays["x"].max() <= 1
            assert 1 <= arrays["x"].shape[0] == arrays["i"].shape[0] <= 4
            assert arrays["i"].max() <= 9

    @pytest.mark.parametrize(
        ("kind", "result", "outcome"),
        [
            ("axis_changed", {"code": 0, "verdict": "proven", "failed": []}, "missed"),
            (
                "axis_changed",
                {
                    "code": 1,
                    "verdict": "differs",
                    "failed": [["mnn_compare", "differs beyond the tolerance"]],
                },
                "caught",
            ),
            (
                "axis_changed",
                {
                    "code": 1,
                    "verdict": "differs",
                    "failed": [["mnn_compare", "MNN's runtime crashed with SIGSEGV"]],
                },
                "stopped",
            ),
            (
                "axis_changed",
                {"code": 3, "verdict": "refused", "failed": [["mnn_convert", "it wrote no file"]]},
                "stopped",
            ),
            ("axis_changed", {"code": 2, "verdict": "", "failed": []}, "stopped"),
            (
                "crash",
                {"code": 3, "verdict": "refused", "failed": [["mnn_convert", "it crashed with SIGSEGV"]]},
                "caught",
            ),
        ],
    )
    def test_what_counts_as_caught(self, kind: str, result: dict[str, Any], outcome: str) -> None:
        from evaluation.faults.run import fault_outcome

        assert fault_outcome({"kind": kind}, result) == outcome

    @pytest.mark.slow
    def test_faults_in_caffe_pairs_are_caught(self, tmp_path: Path) -> None:
        pytest.importorskip("cv2")
        models = ("relu-leaky", "inner-product", "batch-norm")
        chosen = [part for model in models for part in ("--models", model)]
        command = [
            sys.executable,
            "-m",
            "evaluation.faults",
            "--work",
            str(tmp_path),
            "--framework",
            "caffe",
            *chosen,
        ]
        done = subprocess.run(command, capture_output=True, text=True, timeout=900, cwd=ROOT)
        assert done.returncode == 0, done.stdout + done.stderr
        assert "over 3 models: 7 caught, 0 missed" in done.stdout
        assert "clean: 3 models: 3 proven over the whole range; 0 false alarms" in done.stdout
