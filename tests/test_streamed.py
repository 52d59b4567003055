"""Factories whose weights don't fit the memory limit: the graph is exported without them, and they are
streamed from the checkpoint.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from onnx.reference import ReferenceEvaluator

from mnnprep.commands.streamed import why_streamed
from mnnprep.evidence.check import Check, Status
from mnnprep.evidence.verdict import Verdict
from mnnprep.formats.onnx import attach as attaching
from mnnprep.formats.onnx.moved import take_out
from mnnprep.formats.registry import steps_of
from mnnprep.formats.streaming import Attached, AttachJob, CompareJob, Filling
from mnnprep.model.messages import ExportJob, InputSpecs, Source
from mnnprep.model.request import Limits, Request
from mnnprep.model.signature import parse_input
from mnnprep.weights.plan import Made
from mnnprep.workers.host import Host
from mnnprep.workers.step import Worker
from support.command import call, checks_of, prepared, tree

torch = pytest.importorskip("torch")

MIB = 1 << 20
NETS = """
import torch
from torch import nn

class Wide(nn.Module):
    def __init__(self, width, depth=1, dtype=torch.float32):
        super().__init__()
        self.first = nn.Linear(16, width)
        self.body = nn.ModuleList([nn.Linear(width, width) for _ in range(depth)])
        self.last = nn.Linear(width, 16, bias=False)
        self.register_buffer("ramp", torch.linspace(0.5, 1.5, 16), persistent=False)
        self.to(dtype)

    def forward(self, x):
        x = self.first(x * self.ramp)
        for layer in self.body:
            x = x + torch.relu(layer(x)) / 64
        return self.last(x)

def wide(width=64, depth=1):
    return Wide(width, depth)

class Varied(nn.Module):
    def __init__(self):
        super().__init__()
        self.stem = nn.Conv2d(3, 24, 3, padding=1)
        self.norm = nn.BatchNorm2d(24)
        self.lstm = nn.LSTM(24, 20, batch_first=True, bidirectional=True)
        self.table = nn.Embedding(40, 40)
        self.head = nn.Linear(40, 40, bias=False)
        self.head.weight = self.table.weight
        self.same = nn.Linear(40, 40)
        self.alike = nn.Linear(40, 40)

    def forward(self, image):
        y, _ = self.lstm(torch.relu(self.norm(self.stem(image))).mean(2).transpose(1, 2))
        return self.head(torch.tanh(self.alike(torch.tanh(self.same(y))))) + self.table.weight.sum(0)

def varied():
    return Varied()

class Deciding(Wide):
    def forward(self, x):
        y = super().forward(x)
        return y if y.sum() > 0 else -y

def deciding(width=64):
    return Deciding(width)

class Leaving(Wide):
    def forward(self, x):
        return super().forward(x) * float(self.first.bias.numpy().mean() > -9)

def leaving(width=64):
    return Leaving(width)

class Computing(Wide):
    def __init__(self, width):
        super().__init__(width)
        self.register_buffer("norm", self.first.weight.norm(), persistent=False)

def computing(width=64):
    return Computing(width)

class Reading(Wide):
    def __init__(self, width):
        super().__init__(width)
        self.factor = self.first.weight.norm().item()

def reading(width=64):
    return Reading(width)
"""
Nets = Callable[..., tuple[str, Path]]


@pytest.fixture
def nets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Nets:
    """A factory of NETS by its name and the checkpoint of what it builds."""
    place = tmp_path / "streamed_nets.py"
    place.write_text(NETS)
    monkeypatch.syspath_prepend(str(tmp_path))

    def make(name: str, *, dtype: Any = None, **arguments: int) -> tuple[str, Path]:
        import streamed_nets

        torch.manual_seed(1)
        module = getattr(streamed_nets, name)(**arguments)
        for parameter in module.parameters():
            torch.nn.init.normal_(parameter, std=0.1)
        for norm in (m for m in module.modules() if isinstance(m, torch.nn.BatchNorm2d)):
            norm.running_mean.normal_()
            norm.running_var.uniform_(0.5, 2.0)
        state = module.state_dict()
        path = tmp_path / f"{name}.pt"
        torch.save({k: v.to(dtype) if dtype and v.is_floating_point() else v for k, v in state.items()}, path)
        return f"{place}:{name}", path

    return make


def test_weights_beyond_the_limit_are_streamed_and_proven(nets: Nets, tmp_path: Path) -> None:
    factory, weights = nets("wide", width=1900, depth=4)
    size = weights.stat().st_size
    assert size > 55 * MIB
    options = [
        "--weights",
        weights,
        "--factory-arg",
        "width=1900",
        "--factory-arg",
        "depth=4",
        "--input",
        "x=float32[batch,16]",
    ]
    limit = f"{(2 * size + 511 * MIB) // MIB}MB"
    manifest = prepared(factory, tmp_path / "out", *options, "--memory", limit, "--proof-memory", "4GB")
    assert manifest.verdict is Verdict.PROVEN
    (attempt,) = manifest.artifact.attempts
    assert attempt.method == "onnx-stream"
    assert any("streamed" in note and "--memory" in note for note in attempt.notes)
    assert [f.path for f in manifest.artifact.files] == ["model.onnx", "model.onnx.data"]
    assert (tmp_path / "out/model.onnx").stat().st_size < MIB
    (check,) = checks_of(manifest, "weights")
    assert check.numbers["parameters"] == 11
    state = torch.load(weights, weights_only=True)
    stored = {
        t.name: numpy_helper.to_array(t) for t in onnx.load(tmp_path / "out/model.onnx").graph.initializer
    }
    assert np.array_equal(stored["model.first.bias"], state["first.bias"].numpy())
    again = prepared(factory, tmp_path / "again", *options, "--memory", limit, "--proof-memory", "4GB")
    assert again == manifest
    assert tree(tmp_path / "again") == tree(tmp_path / "out")


@pytest.mark.parametrize(
    ("memory", "method", "to", "streamed"),
    [
        (0, "auto", "", False),
        (600 * MIB, "auto", "", True),
        (4096 * MIB, "auto", "", False),
        (4096 * MIB, "onnx-stream", "onnx", True),
        (600 * MIB, "onnx-trace", "", False),
        (600 * MIB, "auto", "torchscript", False),
    ],
)
def test_when_weights_are_streamed(nets: Nets, memory: int, method: str, to: str, streamed: bool) -> None:
    factory, weights = nets("wide", width=1900, depth=4)
    request = Request(
        source=factory, weights=str(weights), method=method, to=to, limits=Limits(memory=memory)
    )
    source = Source(kind="torch-factory", path=factory, weights=str(weights))
    assert bool(why_streamed(request, source)) == streamed
    # a state dict that only the model tells from another: the sizes of the files decide
    state = torch.load(weights, weights_only=True)
    torch.save({"a": state, "b": state}, weights)
    assert bool(why_streamed(request, source)) == streamed


def test_a_proof_without_room_is_unproven(nets: Nets, tmp_path: Path) -> None:
    factory, weights = nets("wide", width=1900, depth=4)
    options = [
        "--weights",
        weights,
        "--factory-arg",
        "width=1900",
        "--factory-arg",
        "depth=4",
        "--input",
        "x=float32[batch,16]",
    ]
    result = call(
        "prepare",
        factory,
        *options,
        "-o",
        tmp_path / "out",
        "--memory",
        "620MB",
        "--proof-memory",
        "40MB",
        "--json",
    )
    assert result.code == 1
    manifest = result.document()
    assert manifest["verdict"] == "unproven"
    checks = {c["check"]: c for c in manifest["evidence"]}
    assert checks["weights"]["status"] == "passed"
    for name in (
        "reference",
        "artifact_compare",
        "mnn_convert",
        "mnn_compare",
        "determinism",
        "self_contained",
        "vacuity",
        "dimension:batch",
    ):
        assert checks[name]["status"] == "not_run"
        assert "the proof may use 40 MiB" in checks[name]["reason"]
    assert manifest["mnn"] is None
    assert manifest["cases"] == []
    assert [t["shape"] for t in manifest["signature"]["outputs"]] == [["batch", 16]]
    assert call("verify", tmp_path / "out").code == 1
    # room for the artifact, and not for the source's framework
    manifest_ = prepared(
        factory, tmp_path / "killed", *options, "--memory", "620MB", "--proof-memory", "90MB"
    )
    assert manifest_.verdict is Verdict.UNPROVEN
    (check,) = checks_of(manifest_, "reference")
    assert "used more than 90 MiB" in check.reason


@pytest.mark.parametrize("dtype", [None, torch.float16, torch.bfloat16, torch.float64])
def test_moved_tied_and_rounded_weights(nets: Nets, tmp_path: Path, dtype: Any) -> None:
    factory, weights = nets("varied", dtype=dtype)
    manifest = prepared(
        factory,
        tmp_path / "out",
        "--weights",
        weights,
        "--input",
        "image=float32[2,3,8,12]",
        "--method",
        "onnx-stream",
    )
    assert manifest.verdict is Verdict.PROVEN
    (check,) = checks_of(manifest, "weights")
    assert check.status is Status.PASSED
    model = onnx.load(tmp_path / "out/model.onnx")
    lstm = next(n for n in model.graph.node if n.op_type == "LSTM")
    assert {lstm.input[1], lstm.input[2], lstm.input[3]} <= {t.name for t in model.graph.initializer}


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("deciding", "streamed_nets.py:"),
        ("leaving", "(numpy)"),
        ("computing", "norm"),
        ("reading", "without its weights"),
    ],
)
def test_what_needs_the_weights_is_refused(nets: Nets, tmp_path: Path, name: str, said: str) -> None:
    factory, weights = nets(name)
    result = call(
        "prepare",
        factory,
        "--weights",
        weights,
        "--input",
        "x=float32[2,16]",
        "--method",
        "onnx-stream",
        "-o",
        tmp_path / "out",
    )
    assert result.code == 3
    assert said in result.err
    assert "--memory" in result.err
    assert not (tmp_path / "out").exists()


def test_weights_that_do_not_fit_the_model(nets: Nets, tmp_path: Path) -> None:
    factory, weights = nets("wide")
    state = torch.load(weights, weights_only=True)
    options = ["--input", "x=float32[2,16]", "--method", "onnx-stream", "-o", tmp_path / "out"]
    for change, said in (
        ({"first.bias": None}, "missing (1): first.bias"),
        ({"first.bias": torch.zeros(3)}, "misshapen (1): first.bias: checkpoint [3] vs model [64]"),
        ({"other": torch.zeros(3)}, "unexpected (1): other"),
        ({"first.bias": torch.zeros(64, dtype=torch.int8)}, "checkpoint int8 vs model float32"),
    ):
        changed = {k: v for k, v in {**state, **change}.items() if v is not None}
        torch.save(changed, tmp_path / "changed.pt")
        result = call("prepare", factory, "--weights", tmp_path / "changed.pt", *options)
        assert result.code == 2, result.err
        assert said in result.err
    result = call("prepare", factory, *options)
    assert result.code == 2
    assert "without --weights" in result.err
    for limits in (
        ["--proof-memory", "1GB"],
        ["--memory", "nonsense"],
        ["--memory", "1GB", "--proof-memory", "-1GB"],
    ):
        result = call(
            "prepare",
            factory,
            "--weights",
            weights,
            "--input",
            "x=float32[2,16]",
            "-o",
            tmp_path / "out",
            *limits,
        )
        assert result.code == 2, result.err


@pytest.fixture(scope="module")
def host(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Host]:
    """One worker for all: torch takes seconds to import."""
    with Host(Worker("test", ("numpy", "torch")), scratch=tmp_path_factory.getbasetemp()) as host:
        yield host


def skeleton_of(host: Host, factory: str, directory: Path, memory: int, **arguments: str) -> Any:
    directory.mkdir()
    source = Source(kind="torch-factory", path=factory, factory_args=arguments)
    job = ExportJob(
        source=source,
        wants=InputSpecs(inputs=(parse_input("x=float32[2,16]"),)),
        method="onnx-stream",
        opset=13,
        directory=str(directory),
    )
    streaming = steps_of("torch-factory").streaming
    assert streaming is not None
    return host.submit(streaming.export, job, timeout=300, memory=memory).result()


def test_no_weight_comes_into_memory(nets: Nets, host: Host, tmp_path: Path) -> None:
    factory, _ = nets("wide")
    small = skeleton_of(host, factory, tmp_path / "small", 0, width="64")
    # 2.1 GB of float32
    large = skeleton_of(host, factory, tmp_path / "large", 0, width="16384", depth="2")
    assert large.value.parameters * 4 > 2 << 30
    assert large.peak - small.peak < 100 * MIB
    assert Path(large.value.file.path).stat().st_size < MIB


def filled(nets: Nets, host: Host, tmp_path: Path) -> tuple[Filling, Attached]:
    factory, weights = nets("wide", width=300)
    skeleton = skeleton_of(host, factory, tmp_path / "skeleton", 0, width="300").value
    filling = Filling(
        skeleton=skeleton.file.path, checkpoint=str(weights), weights=skeleton.weights, shapes=skeleton.shapes
    )
    (tmp_path / "made").mkdir()
    return filling, attaching.attach(AttachJob(filling=filling, directory=str(tmp_path / "made")))


def test_a_changed_byte_fails_the_weights_check(nets: Nets, host: Host, tmp_path: Path) -> None:
    filling, made = filled(nets, host, tmp_path)
    model, data = (Path(f.path) for f in made.files)
    assert attaching.compare(CompareJob(filling=filling, model=str(model))).status is Status.PASSED
    whole = bytearray(data.read_bytes())
    whole[len(whole) // 2] ^= 1
    data.write_bytes(whole)
    check: Check = attaching.compare(CompareJob(filling=filling, model=str(model)))
    assert check.status is Status.FAILED
    assert "not in the artifact by value" in check.reason


def test_large_matrices_are_turned_piece_by_piece(
    nets: Nets, host: Host, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    filling, made = filled(nets, host, tmp_path)
    for limit in (1, 5000, 100_000):
        monkeypatch.setattr(attaching, "TURN_BYTES", limit)
        directory = tmp_path / str(limit)
        directory.mkdir()
        again = attaching.attach(AttachJob(filling=filling, directory=str(directory)))
        assert [f.sha256 for f in again.files] == [f.sha256 for f in made.files]
    half = tmp_path / "half.pt"
    torch.save({k: v.half() for k, v in torch.load(filling.checkpoint, weights_only=True).items()}, half)
    rounded = Filling(
        skeleton=filling.skeleton, checkpoint=str(half), weights=filling.weights, shapes=filling.shapes
    )
    hashes = set()
    for limit in (1, 5000, 1 << 30):
        monkeypatch.setattr(attaching, "TURN_BYTES", limit)
        shutil.rmtree(tmp_path / "made")
        (tmp_path / "made").mkdir()
        hashes.add(
            attaching.attach(AttachJob(filling=rounded, directory=str(tmp_path / "made"))).files[1].sha256
        )
    assert len(hashes) == 1


CONSTANTS = {"axes": [0], "starts": [1], "ends": [2**62], "steps": [2], "shape": [0, -1], "last": [-1]}


@pytest.mark.parametrize(
    "nodes",
    [
        [("Transpose", ["w"], {"perm": [1, 0]})],
        [("Transpose", ["w"], {})],
        [("Unsqueeze", ["w", "axes"], {}), ("Squeeze", ["v0", "axes"], {})],
        [("Unsqueeze", ["w", "last"], {}), ("Squeeze", ["v0"], {})],
        [("Slice", ["w", "starts", "ends", "axes", "steps"], {}), ("Concat", ["v0", "w"], {"axis": 0})],
        [("Slice", ["w", "starts", "ends", "last"], {}), ("Identity", ["v0"], {})],
        [
            ("Unsqueeze", ["w", "axes"], {}),
            ("Reshape", ["v0", "shape"], {}),
            ("Transpose", ["v1"], {"perm": [1, 0]}),
        ],
        [("Concat", ["w", "w"], {"axis": -1})],
    ],
)
def test_nodes_that_move_a_weight_are_taken_out(nodes: list[Any]) -> None:
    values = np.arange(15, dtype=np.float32).reshape(5, 3)
    made = [
        helper.make_node(kind, inputs, [f"v{i}"], **attributes)
        for i, (kind, inputs, attributes) in enumerate(nodes)
    ]
    last = f"v{len(nodes) - 1}"
    made.append(helper.make_node("Abs", [last], ["out"]))
    graph = helper.make_graph(
        made,
        "g",
        [helper.make_tensor_value_info("w", TensorProto.FLOAT, [5, 3])],
        [helper.make_tensor_value_info("out", TensorProto.FLOAT, None)],
        [numpy_helper.from_array(np.array(v), n) for n, v in CONSTANTS.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)])
    (right,) = ReferenceEvaluator(model).run(None, {"w": values})
    weight = Made("float32", (5, 3), (), make=lambda: values.view(np.uint32))
    known = take_out(model, {"w": weight})
    assert [n.op_type for n in model.graph.node] == ["Abs"]
    assert known[last].shape == right.shape
    assert np.array_equal(known[last].array().view(np.float32), right)


def test_nodes_that_compute_stay() -> None:
    nodes = [
        helper.make_node("Mul", ["w", "w"], ["a"]),
        helper.make_node("Transpose", ["a"], ["b"]),
        helper.make_node("Concat", ["w", "x"], ["c"], axis=0),
        helper.make_node("Transpose", ["w"], ["out"]),
    ]
    values = [
        helper.make_tensor_value_info(n, TensorProto.FLOAT, [3, 3]) for n in ("w", "x", "b", "c", "out")
    ]
    model = helper.make_model(helper.make_graph(nodes, "g", values[:2], values[2:]))
    known = take_out(model, {"w": Made("float32", (3, 3), ())})
    assert [n.op_type for n in model.graph.node] == ["Mul", "Transpose", "Concat", "Transpose"]
    assert list(known) == ["w"]
