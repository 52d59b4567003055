"""The benchmarks run, and the zoo's verdicts hold for one net of each kind."""

import subprocess
import sys
from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).resolve().parent.parent / "benchmarks"
pytest.importorskip("torch")


@pytest.mark.slow
@pytest.mark.parametrize("net", ["bert_sdpa", "llama", "vit", "resnet", "wav2vec2"])
def test_a_net_of_the_zoo_is_proven(net: str) -> None:
    done = subprocess.run([sys.executable, str(BENCHMARKS / "zoo.py"), "--only", net], capture_output=True, text=True, timeout=900)
    assert "1 of 1 proven" in done.stdout, done.stdout + done.stderr


@pytest.mark.slow
def test_prepare_is_measured_against_the_script_a_user_writes() -> None:
    command = [sys.executable, str(BENCHMARKS / "prepare.py"), "--only", "plain_mobilenet", "--rounds", "1"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=900)
    assert "1 of 1 nets compared" in done.stdout, done.stdout + done.stderr
    assert "proven; script: ran" in done.stdout
