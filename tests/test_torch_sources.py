"""PyTorch sources of every kind, from the command line to the verdict of the bundle."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

import mnnprep
from evaluation.nets import sources
from evaluation.nets.real_models import fetch
from mnnprep.bundle.manifest import Manifest
from mnnprep.evidence.check import Check, Status
from mnnprep.evidence.verdict import Verdict
from support.command import ROOT, SUPPORT, call, checks_of, prepared

torch = pytest.importorskip("torch")

SOURCES = Path(sources.__file__)
Prepare = Callable[..., tuple[Manifest, Path]]


@pytest.fixture
def prepare(tmp_path: Path) -> Prepare:
    """Prepare a factory of `sources`, or a path: the manifest and the bundle."""

    def run(source: str | Path, *options: str | Path) -> tuple[Manifest, Path]:
        place = f"{SOURCES}:{source}" if isinstance(source, str) and "/" not in source else source
        return prepared(place, tmp_path / "out", *options), tmp_path / "out"

    return run


def only(manifest: Manifest, name: str, status: Status) -> Check:
    """The one check of this name that has this status."""
    (found,) = [c for c in checks_of(manifest, name) if c.status is status]
    return found


def shapes(manifest: Manifest) -> tuple[dict[str, list[int | str]], dict[str, list[int | str]]]:
    return {t.name: t.shape for t in manifest.signature.inputs}, {
        t.name: t.shape for t in manifest.signature.outputs
    }


def model_of(bundle: Path) -> Any:
    return onnx.load(bundle / "model.onnx")


def initializers(bundle: Path) -> dict[str, np.ndarray]:
    return {t.name: onnx.numpy_helper.to_array(t) for t in model_of(bundle).graph.initializer}


class TestFactories:
    def test_arguments_are_literals_or_text(self, prepare: Prepare) -> None:
        manifest, bundle = prepare(
            "sized", "--factory-arg", "width=6", "--factory-arg", "act=tanh", "--factory-arg", "bias=False"
        )
        assert manifest.verdict is Verdict.PROVEN
        assert manifest.source.options["factory"] == "sources.py:sized"
        assert shapes(manifest)[1] == {"output": [1, 6, 6, 6]}
        assert {n.op_type for n in model_of(bundle).graph.node} == {"Conv", "Tanh"}
        assert (bundle / "model.mnn").is_file()
        assert not (bundle / "unproven.mnn").exists()

    def test_a_module_of_a_package(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        package = tmp_path / "work" / "my_nets"
        (package / "inner").mkdir(parents=True)
        (package / "__init__.py").write_text("")
        (package / "inner" / "__init__.py").write_text(
            "from .blocks import block\n\ndef build(width: int):\n    return block(width)\n"
        )
        (package / "inner" / "blocks.py").write_text(
            "import torch\n\ndef block(width):\n    return torch.nn.Linear(4, width)\n"
        )
        monkeypatch.chdir(package.parent)
        manifest = prepared(
            "my_nets.inner:build",
            tmp_path / "out",
            "--factory-arg",
            "width=3",
            "--input",
            "input=float32[n,4]",
            "--dim",
            "n=1:5",
        )
        assert manifest.verdict is Verdict.PROVEN
        assert manifest.signature.dims["n"].proven == [1, 2, 3, 5]
        assert shapes(manifest) == ({"input": ["n", 4]}, {"output": ["n", 3]})


@pytest.mark.parametrize(
    ("name", "inputs", "outputs"),
    [
        ("gives_dict", ["x"], ["logits", "probability"]),
        ("gives_tuple", ["x"], ["output_0", "output_1"]),
        ("gives_named_tuple", ["x"], ["mean", "scale"]),
        ("gives_nested", ["x"], ["a.0", "a.1.0", "b"]),
        ("gives_dataclass", ["x"], ["boxes", "extra.0"]),
        ("gives_its_input_too", ["x"], ["x_output", "features"]),
        ("keywords_only", ["gain", "image"], ["output"]),
    ],
)
def test_forwards_of_every_shape(prepare: Prepare, name: str, inputs: list[str], outputs: list[str]) -> None:
    """The signature has the names of the forward's parameters and of its result, in the artifact too."""
    manifest, bundle = prepare(name)
    assert manifest.verdict is Verdict.PROVEN, manifest.artifact.attempts
    assert sorted(t.name for t in manifest.signature.inputs) == inputs
    assert [t.name for t in manifest.signature.outputs] == outputs
    graph = model_of(bundle).graph
    assert sorted(v.name for v in graph.input) == inputs
    assert [v.name for v in graph.output] == outputs


class TestLayers:
    @pytest.mark.parametrize("name", ["lstm", "gru", "conv1d", "half", "double_linear", "stubborn"])
    def test_proven(self, prepare: Prepare, name: str) -> None:
        manifest, _ = prepare(name)
        assert manifest.verdict is Verdict.PROVEN, manifest.artifact.attempts

    @pytest.mark.parametrize("name", ["attention", "encoder_layer", "sdpa"])
    def test_attention(self, prepare: Prepare, name: str) -> None:
        """The search for an opset ends at the one that has the operator, and the manifest says what the file
        has.
        """
        manifest, bundle = prepare(name)
        assert manifest.verdict is Verdict.PROVEN, manifest.artifact.attempts
        assert manifest.artifact.opset == model_of(bundle).opset_import[0].version >= 14

    def test_weights_that_are_computed(self, prepare: Prepare) -> None:
        """Weight norm, old and new, and spectral norm: the artifact holds the values they compute."""
        manifest, bundle = prepare("weight_norm")
        assert manifest.verdict is Verdict.PROVEN, manifest.artifact.attempts
        assert {n.op_type for n in model_of(bundle).graph.node} <= {"Conv", "Relu"}

    def test_float64_that_no_runtime_computes(self, prepare: Prepare) -> None:
        manifest, _ = prepare("double")
        assert manifest.verdict is Verdict.UNPROVEN
        assert "Conv" in only(manifest, "self_contained", Status.NOT_RUN).reason

    def test_indices_stay_in_their_table(self, prepare: Prepare) -> None:
        """Integer inputs in the range of the embedding; a parameter that reaches no output is not asked
        for.
        """
        manifest, bundle = prepare("tokens")
        assert manifest.verdict is Verdict.PROVEN, manifest.artifact.attempts
        assert manifest.signature.inputs[0].range == [0, 10]
        values = np.concatenate(
            [np.load(bundle / case.path)["inputs/ids"].ravel() for case in manifest.cases]
        )
        assert values.min() >= 0
        assert 2 < values.max() <= 10
        assert only(manifest, "weights", Status.PASSED).numbers["parameters"] == 2

    def test_tied_weights(self, prepare: Prepare) -> None:
        manifest, _ = prepare("tied")
        assert manifest.verdict is Verdict.PROVEN, manifest.artifact.attempts
        assert only(manifest, "weights", Status.PASSED).numbers["parameters"] == 1


class TestDecisions:
    def test_a_branch_selects_scripting(self, prepare: Prepare) -> None:
        """Both sides are in the cases: the trace is wrong in one, and the file says why."""
        manifest, bundle = prepare("branch")
        assert manifest.verdict is Verdict.PROVEN, manifest.artifact.attempts
        assert manifest.artifact.method == "onnx-script"
        assert "If" in {n.op_type for n in model_of(bundle).graph.node}
        traced = manifest.artifact.attempts[0]
        assert (traced.method, traced.verdict) == ("onnx-trace", "differs")
        assert any("sources.py:" in note and "bool" in note for note in traced.notes), traced.notes

    def test_a_branch_that_no_input_takes(self, prepare: Prepare) -> None:
        """What no case runs is proven by no method: not where the decision is frozen, nor where it is
        kept.
        """
        manifest, _ = prepare("one_sided")
        reasons = {a.method: a.reason for a in reversed(manifest.artifact.attempts)}
        assert manifest.verdict is Verdict.UNPROVEN, manifest.artifact.attempts
        assert "branches" in reasons["onnx-trace"]
        assert "sources.py:" in reasons["onnx-trace"]
        assert re.search(
            "coverage: no case runs the then_branch of If .*, which x decides", reasons["onnx-script"]
        )

    def test_inputs_that_turn_a_decision_are_looked_for(self, prepare: Prepare) -> None:
        """No random input is negative throughout: one is made, and the traced artifact differs there."""
        manifest, _ = prepare("rarely_negative")
        assert "seed 201, all negative" in {c.origin for c in manifest.cases}
        traced = manifest.artifact.attempts[0]
        assert traced.method == "onnx-trace"
        assert "artifact_compare" in traced.reason
        assert (manifest.verdict, manifest.artifact.method) == (
            Verdict.PROVEN,
            "onnx-script",
        ), manifest.artifact.attempts

    def test_a_branch_that_nothing_expresses(self, prepare: Prepare) -> None:
        manifest, bundle = prepare("unscriptable_branch")
        assert manifest.verdict is Verdict.DIFFERS
        reasons = {a.method: a.reason for a in manifest.artifact.attempts if a.opset <= 18}
        assert "Lambda" in reasons["onnx-script"]
        assert "sources.py:" in reasons["onnx-script"]
        assert any("sources.py:" in note for a in manifest.artifact.attempts for note in a.notes)
        assert not (bundle / "model.mnn").exists()


class TestTraining:
    def test_functional_dropout(self, prepare: Prepare) -> None:
        manifest, bundle = prepare("functional_dropout")
        assert manifest.verdict is Verdict.DIFFERS
        failures = [c.reason for c in checks_of(manifest, "inference_mode") if c.status is Status.FAILED]
        line = next(i for i, text in enumerate(SOURCES.read_text().splitlines(), 1) if "F.dropout" in text)
        assert any(f"sources.py:{line}" in reason for reason in failures), failures
        assert not (bundle / "model.mnn").exists()

    def test_a_norm_without_statistics(self, prepare: Prepare) -> None:
        manifest, _ = prepare("no_statistics")
        assert manifest.verdict in (Verdict.DIFFERS, Verdict.REFUSED)
        assert any(
            "1 (BatchNorm2d) has no running statistics" in c.reason
            for c in checks_of(manifest, "inference_mode")
        )

    def test_a_program_exported_in_training(self, prepare: Prepare, tmp_path: Path) -> None:
        net = torch.nn.Sequential(torch.nn.Conv2d(1, 4, 3), torch.nn.Dropout(0.5)).train()
        torch.export.save(torch.export.export(net, (torch.rand(2, 1, 8, 8),)), tmp_path / "training.pt2")
        manifest, _ = prepare(tmp_path / "training.pt2")
        assert manifest.verdict is Verdict.DIFFERS
        assert any(
            "dropout" in c.reason and c.status is Status.FAILED for c in checks_of(manifest, "inference_mode")
        )

    @pytest.mark.parametrize("name", ["noisy", "forgets"])
    def test_what_changes_by_itself(self, prepare: Prepare, name: str) -> None:
        manifest, _ = prepare(name)
        assert manifest.verdict is Verdict.UNPROVEN
        assert "output" in only(manifest, "determinism", Status.FAILED).reason

    @pytest.mark.parametrize("inputs", [(), ("--input", "x=float32[batch,1,8,8]")])
    def test_what_is_kept_of_the_first_call(self, prepare: Prepare, inputs: tuple[str, ...]) -> None:
        """The reference and the export each keep another first call, so that they can't agree by chance."""
        manifest, _ = prepare("keeps_its_first_call", "--method", "onnx-trace", *inputs)
        assert manifest.verdict is Verdict.DIFFERS
        assert "tolerance" in only(manifest, "artifact_compare", Status.FAILED).reason

    def test_fewer_outputs_while_it_is_exported(self, prepare: Prepare) -> None:
        manifest, _ = prepare("fewer_outputs_when_exported", "--method", "onnx-trace")
        assert manifest.verdict is Verdict.DIFFERS
        assert "output_2 in case 0" in only(manifest, "artifact_compare", Status.FAILED).reason

    def test_a_constant(self, prepare: Prepare) -> None:
        manifest, _ = prepare("constant")
        assert manifest.verdict is Verdict.UNPROVEN
        assert only(manifest, "vacuity", Status.FAILED).subject == "output"


LOAD_ALONE = """
import importlib.util, sys, numpy, torch
assert importlib.util.find_spec("evaluation") is None
module = torch.jit.load("model.pt").eval()
for name in sys.argv[1:]:
    arrays = numpy.load(name)
    outputs = module(*(torch.from_numpy(arrays[n]) for n in arrays.files if n.startswith("inputs/")))
    outputs = outputs if isinstance(outputs, tuple) else (outputs,)
    for output, wanted in zip(outputs, [n for n in arrays.files if n.startswith("outputs/")], strict=True):
        assert numpy.allclose(output.detach().numpy(), arrays[wanted], rtol=1e-3, atol=1e-5)
print(sorted({n.kind() for n in torch.jit.freeze(module).inlined_graph.nodes()}))
"""


class TestTorchScript:
    @pytest.mark.parametrize("name", ["sdpa", "encoder_layer"])
    def test_it_runs_without_the_users_code(self, prepare: Prepare, name: str) -> None:
        """Without a converter for it the verdict is unproven; the file is checked all the same, and holds no
        fused attention.
        """
        manifest, bundle = prepare(name, "--to", "torchscript")
        assert (manifest.verdict, manifest.artifact.format) == (Verdict.UNPROVEN, "torchscript")
        for check in ("artifact_compare", "self_contained", "weights"):
            only(manifest, check, Status.PASSED)
        for check in ("mnn_convert", "mnn_compare"):
            assert only(manifest, check, Status.NOT_RUN).reason
        cases = [str(bundle / case.path) for case in manifest.cases]
        done = subprocess.run(
            [sys.executable, "-I", "-c", LOAD_ALONE, *cases],
            cwd=bundle,
            capture_output=True,
            text=True,
            timeout=120,
        )
        assert done.returncode == 0, done.stderr
        assert "aten::softmax" in done.stdout
        assert "attention" not in done.stdout
        assert "TransformerEncoder" not in done.stdout

    def test_scripting_keeps_the_branch(self, prepare: Prepare) -> None:
        manifest, bundle = prepare("branch", "--to", "torchscript")
        assert manifest.artifact.method == "script", manifest.artifact.attempts
        only(manifest, "artifact_compare", Status.PASSED)
        assert manifest.artifact.attempts[0].method == "trace"
        assert manifest.artifact.attempts[0].verdict == "differs"
        assert "prim::If" in str(torch.jit.load(bundle / "model.pt").inlined_graph)

    @pytest.fixture(scope="class")
    @classmethod
    def script(cls, tmp_path_factory: pytest.TempPathFactory) -> Path:
        path = tmp_path_factory.mktemp("script") / "net.pt"
        net = torch.nn.Sequential(torch.nn.Conv2d(1, 4, 3), torch.nn.BatchNorm2d(4), torch.nn.Dropout(0.5))
        torch.jit.script(net.train()).save(str(path))
        return path

    def test_a_file_to_onnx(self, prepare: Prepare, script: Path) -> None:
        """Saved in training mode; eval reaches all of it."""
        manifest, _ = prepare(script, "--input", "input=float32[batch,1,8,8]", "--dim", "batch=1:4")
        assert (manifest.verdict, manifest.artifact.method) == (
            Verdict.PROVEN,
            "onnx-trace",
        ), manifest.artifact.attempts
        assert manifest.signature.dims["batch"].proven == [1, 2, 3, 4]

    def test_a_file_to_torchscript(self, prepare: Prepare, script: Path) -> None:
        manifest, bundle = prepare(script, "--to", "torchscript", "--input", "input=float32[1,1,8,8]")
        assert (manifest.verdict, manifest.artifact.method) == (Verdict.UNPROVEN, "copy")
        only(manifest, "artifact_compare", Status.PASSED)
        assert not torch.jit.load(bundle / "model.pt").training

    def test_a_file_that_gives_a_dictionary(self, prepare: Prepare, tmp_path: Path) -> None:
        """No exporter has a form for one; what is in it comes out by name, in order."""
        torch.jit.script(sources.Heads()).save(str(tmp_path / "heads.pt"))
        manifest, _ = prepare(
            tmp_path / "heads.pt", "--input", "image=float32[batch,1,8,8]", "--dim", "batch=1:4"
        )
        assert (manifest.verdict, manifest.artifact.method) == (
            Verdict.PROVEN,
            "onnx-trace",
        ), manifest.artifact.attempts
        assert [o.source_name for o in manifest.signature.outputs] == ["map", "logits"]


class TestFiles:
    def test_an_exported_program(self, prepare: Prepare, tmp_path: Path) -> None:
        """Inputs and dynamic dimensions are read from the file."""
        net = torch.nn.Sequential(torch.nn.Conv2d(1, 4, 3), torch.nn.BatchNorm2d(4), torch.nn.ReLU()).eval()
        batch = torch.export.Dim("batch", min=2, max=9)
        program = torch.export.export(net, (torch.rand(2, 1, 8, 8),), dynamic_shapes=({0: batch},))
        torch.export.save(program, tmp_path / "net.pt2")
        manifest, _ = prepare(tmp_path / "net.pt2")
        assert manifest.verdict is Verdict.PROVEN, manifest.artifact.attempts
        (dim,) = manifest.signature.dims.values()
        assert len(dim.proven) >= 2

    def test_a_pickled_module(self, prepare: Prepare, tmp_path: Path) -> None:
        torch.save(
            torch.nn.Sequential(torch.nn.Conv2d(1, 4, 3), torch.nn.Dropout(0.5)).train(), tmp_path / "net.pt"
        )
        manifest, _ = prepare(tmp_path / "net.pt", "--trust", "--input", "input=float32[1,1,8,8]")
        assert manifest.verdict is Verdict.PROVEN, manifest.artifact.attempts
        assert manifest.source.options["trust"] is True


@pytest.mark.real
class TestRealWeights:
    @pytest.mark.parametrize("net", ["pnet", "rnet", "onet"])
    def test_facenet(self, prepare: Prepare, net: str) -> None:
        sizes = {"pnet": "height,width", "rnet": "24,24", "onet": "48,48"}[net]
        dims = [
            "--dim",
            "batch=1:3",
            *(["--dim", "height=12:40", "--dim", "width=12:40"] if net == "pnet" else []),
        ]
        options = [
            "--weights",
            fetch(f"facenet-{net}.pt"),
            "--input",
            f"image=float32[batch,3,{sizes}]",
            "--range",
            "image=-1:1",
        ]
        manifest, bundle = prepare(f"{SUPPORT / 'nets.py'}:{net}", *options, *dims)
        assert manifest.verdict is Verdict.PROVEN, manifest.artifact.attempts
        assert manifest.signature.dims["batch"].proven == [1, 2, 3]
        trained = torch.load(fetch(f"facenet-{net}.pt"), weights_only=True)["conv1.weight"].numpy()
        assert any(np.array_equal(trained, array) for array in initializers(bundle).values())

    def test_silero_onnx(self, prepare: Prepare) -> None:
        """An LSTM and a branch on the sampling rate, which is fixed by its range."""
        inputs = [
            "--input",
            "input=float32[1,576]",
            "--input",
            "state=float32[2,1,128]",
            "--range",
            "sr=16000:16000",
            "--range",
            "input=-1:1",
        ]
        manifest, _ = prepare(fetch("silero-vad.onnx"), *inputs)
        assert manifest.verdict is Verdict.PROVEN, manifest.artifact.attempts

    def test_silero_torchscript(self, prepare: Prepare) -> None:
        """It keeps the state of its LSTM between calls, so that no single call proves anything; the evidence
        says so.
        """
        manifest, _ = prepare(
            fetch("silero-vad.jit"),
            "--input",
            "x=float32[1,512]",
            "--input",
            "sr=int64[]",
            "--range",
            "sr=16000:16000",
        )
        assert manifest.verdict is Verdict.UNPROVEN
        assert "keeps state" in only(manifest, "determinism", Status.FAILED).reason
        assert "bitwise Not" in manifest.artifact.attempts[0].reason


def test_the_typed_function(tmp_path: Path) -> None:
    """What a notebook calls does the same."""
    told: list[str] = []
    manifest = mnnprep.prepare(
        f"{SOURCES}:sized", tmp_path / "out", factory_args={"width": 2, "act": "relu"}, tell=told.append
    )
    assert manifest is not None
    assert manifest.verdict is Verdict.PROVEN
    assert json.loads((tmp_path / "out" / "manifest.json").read_text())["verdict"] == "proven"
    assert told
    result = call(
        "prepare",
        f"{SOURCES}:sized",
        "--factory-arg",
        "width=2",
        "--factory-arg",
        "act=relu",
        "-o",
        tmp_path / "other",
        "--json",
    )
    assert result.document()["verdict"] == "proven"
    assert result.document()["files"] == json.loads((tmp_path / "out" / "manifest.json").read_text())["files"]
    assert ROOT.name == "src"
