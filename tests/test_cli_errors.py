"""Every mistake a user makes ends in one message with a way on and the right exit code; nothing is left
half-written.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import onnx
import psutil
import pytest
from onnx import TensorProto, helper

from evaluation.nets.mnn_models import floats, matmul, node, save
from mnnprep import deps
from mnnprep.workers import host, launch
from mnnprep.workers.step import Worker
from support.command import SUPPORT, Result, call, checks_of, environment, prepared, program, tree

torch = pytest.importorskip("torch")

MISTAKES = f"{SUPPORT / 'mistakes.py'}"
USAGE, REFUSED, INTERRUPTED = 2, 3, 130


class Evil:
    """Unpickled, it writes a file."""

    def __reduce__(self) -> Any:
        return os.system, ("touch executed",)


class Mistake(NamedTuple):
    """A command line, and what must be said of it: the exit code and words of the message."""

    name: str
    line: str
    code: int
    words: tuple[str, ...]


def mistake(name: str, line: str, code: int, *words: str) -> Mistake:
    return Mistake(name, line, code, words)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with good files and bad ones, and a bundle."""
    directory = tmp_path_factory.mktemp("mistakes")
    good = matmul(directory / "good.onnx").read_bytes()
    (directory / "page.onnx").write_text("<!DOCTYPE html><html><body>Sign in</body></html>")
    (directory / "pointer.onnx").write_text(
        f"version https://git-lfs.github.com/spec/v1\noid sha256:{'0' * 64}\nsize 123\n"
    )
    (directory / "empty.onnx").write_bytes(b"")
    (directory / "cut.onnx").write_bytes(good[:-20])
    (directory / "notes.txt").write_text("a note\n")
    (directory / "folder").mkdir()
    (directory / "folder" / "kept.txt").write_text("kept")
    _onnx_files(directory)
    _torch_files(directory)
    np.savez(directory / "other-name.npz", z=np.zeros((1, 4), np.float32))
    np.savez(directory / "other-shape.npz", x=np.zeros((1, 5), np.float32))
    np.savez(directory / "other-dtype.npz", x=np.zeros((1, 4), np.complex64))
    (directory / "cut.npz").write_bytes((directory / "other-name.npz").read_bytes()[:-40])
    (directory / "samples").mkdir()
    (directory / "config.py").write_text("import nothing_of_this_name\n")
    prepared(directory / "good.onnx", directory / "bundle")
    return directory


def _onnx_files(directory: Path) -> None:
    text = ("x", TensorProto.STRING, ("n",))
    save(
        directory / "text.onnx", [node("Identity", ["x"], ["y"])], [text], [("y", TensorProto.STRING, ("n",))]
    )
    sequence = helper.make_tensor_sequence_value_info("x", TensorProto.FLOAT, None)
    graph = helper.make_graph(
        [node("SequenceLength", ["x"], ["y"])],
        "g",
        [sequence],
        [helper.make_tensor_value_info("y", TensorProto.INT64, [])],
    )
    onnx.save(
        helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8),
        directory / "sequence.onnx",
    )
    save(
        directory / "closed.onnx",
        [node("Identity", ["w"], ["y"])],
        [],
        [floats("y", 3)],
        {"w": np.zeros(3, np.float32)},
    )
    save(
        directory / "private.onnx",
        [node("Own", ["x"], ["y"], domain="my.company")],
        [floats("x", 3)],
        [floats("y", 3)],
        domains=["my.company"],
    )
    save(
        directory / "hardmax.onnx",
        [node("Hardmax", ["x"], ["y"], name="the_peak", axis=1)],
        [floats("x", 2, 3)],
        [floats("y", 2, 3)],
    )
    tensor = TensorProto(name="w", data_type=TensorProto.FLOAT, dims=[3], data_location=TensorProto.EXTERNAL)
    tensor.external_data.add(key="location", value="gone.data")
    graph = helper.make_graph(
        [node("Add", ["x", "w"], ["y"])],
        "g",
        [helper.make_tensor_value_info(*floats("x", 3))],
        [helper.make_tensor_value_info(*floats("y", 3))],
        [tensor],
    )
    onnx.save(
        helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8),
        directory / "dataless.onnx",
    )
    _huge(directory / "huge.onnx")


def _huge(path: Path) -> None:
    """An ONNX file of a little more than 2 GiB, nearly all of it a hole."""
    size = (1 << 31) + 8
    tensor = b"\x08" + _varint(size) + b"\x10\x02\x4a" + _varint(size)  # dims, uint8, raw_data
    graph = b"\x2a" + _varint(len(tensor) + size) + tensor
    head = (
        b"\x08\x08\x42\x02\x10\x11\x3a" + _varint(len(graph) + size) + graph
    )  # ir_version 8, opset 17, graph
    with path.open("wb") as file:
        file.write(head)
        file.truncate(len(head) + size)


def _varint(value: int) -> bytes:
    out = bytearray()
    while value >= 0x80:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*out, value])


def _torch_files(directory: Path) -> None:
    import torch.package
    from safetensors.torch import save_file

    net = torch.nn.Sequential(torch.nn.Conv2d(1, 4, 3), torch.nn.ReLU())
    torch.jit.trace(net.eval(), torch.zeros(1, 1, 8, 8)).save(str(directory / "script.pt"))
    (directory / "cut.pt").write_bytes((directory / "script.pt").read_bytes()[:-300])
    torch.save(net.state_dict(), directory / "weights.pt")
    save_file(net.state_dict(), directory / "weights.safetensors")
    (directory / "cut.safetensors").write_bytes((directory / "weights.safetensors").read_bytes()[:-30])
    torch.save({"0.weight": torch.zeros(4, 1, 5, 5), "2.bias": torch.zeros(4)}, directory / "foreign.pt")
    torch.save(net, directory / "module.pt")
    net.extra = Evil()
    torch.save(net, directory / "evil.pt")
    with torch.package.PackageExporter(str(directory / "package.pt")) as exporter:
        exporter.save_pickle("model", "model.pkl", torch.zeros(2))


LIGHT = [
    mistake("no command", "", USAGE, "No such option '--json'"),
    mistake("unknown command", "frobnicate", USAGE, "frobnicate"),
    mistake("unknown option", "prepare good.onnx -o out --bogus", USAGE, "--bogus"),
    mistake("no source", "prepare -o out", USAGE, "SOURCE"),
    mistake("no output", "prepare good.onnx", USAGE, "--output"),
    mistake("missing path", "prepare nothing.onnx -o out", USAGE, "no such file", "nothing.onnx"),
    mistake("missing path, inspect", "inspect nothing.onnx", USAGE, "no such file"),
    mistake("missing bundle, verify", "verify nothing", USAGE, "no bundle"),
    mistake("missing bundle, report", "report nothing", USAGE, "no bundle"),
    mistake("no bundle", "verify folder", USAGE, "not a bundle", "manifest.json"),
    mistake("a page", "prepare page.onnx -o out", REFUSED, "HTML"),
    mistake("a page, inspect", "inspect page.onnx", REFUSED, "HTML"),
    mistake("an LFS pointer", "prepare pointer.onnx -o out", REFUSED, "Git LFS", "git lfs pull"),
    mistake("an empty file", "prepare empty.onnx -o out", REFUSED, "empty"),
    mistake("no model", "prepare notes.txt -o out", REFUSED, "not a model"),
    mistake("a directory", "prepare folder -o out", REFUSED, "directory"),
    mistake("a torch.package", "prepare package.pt -o out", REFUSED, "torch.package"),
    mistake("a cut ONNX", "prepare cut.onnx -o out", REFUSED, "truncated"),
    mistake("a cut TorchScript", "prepare cut.pt -o out", REFUSED, "truncated"),
    mistake("a cut safetensors", "prepare cut.safetensors -o out", REFUSED, "truncated"),
    mistake(
        "weights only",
        "prepare weights.pt -o out",
        USAGE,
        "weights only",
        "file.py:callable --weights weights.pt",
    ),
    mistake(
        "safetensors alone",
        "prepare weights.safetensors -o out",
        USAGE,
        "weights only",
        "--weights weights.safetensors",
    ),
    mistake(
        "a pickled module",
        "prepare module.pt -o out",
        REFUSED,
        "--trust",
        "torch.nn.modules.container.Sequential",
    ),
    mistake("a malicious module", "prepare evil.pt -o out", REFUSED, "--trust", "posix.system"),
    mistake("2 GiB", "prepare huge.onnx -o out", REFUSED, "2 GiB", "save_as_external_data"),
    mistake("missing data", "prepare dataless.onnx -o out", REFUSED, "external data", "gone.data: missing"),
    mistake("a Python file", "prepare config.py -o out", USAGE, "config.py:callable"),
    mistake("a factory's missing file", "prepare nothing.py:build -o out", USAGE, "nothing.py"),
    mistake("a factory's missing module", "prepare no_such_module.sub:build -o out", USAGE, "no_such_module"),
    mistake("this program's module", "prepare __main__:build -o out", USAGE, "__main__"),
    mistake(
        "an unreadable --input",
        "prepare good.onnx -o out --input x=float32",
        USAGE,
        "--input",
        "x=float32",
        "NAME=DTYPE[SHAPE]",
    ),
    mistake("an unknown dtype", "prepare good.onnx -o out --input x=floot[1,4]", USAGE, "floot", "float32"),
    mistake("a bad dimension", "prepare good.onnx -o out --input x=float32[1,-4]", USAGE, "'-4'"),
    mistake("a dimension of 0", "prepare good.onnx -o out --input x=float32[0,4]", USAGE, "size 0"),
    mistake(
        "an --input twice",
        "prepare good.onnx -o out --input x=float32[1,4] --input x=float32[2,4]",
        USAGE,
        "twice",
    ),
    mistake(
        "an unreadable --dim", "prepare good.onnx -o out --dim batch=4", USAGE, "batch=4", "NAME=MIN:MAX"
    ),
    mistake("an empty --dim", "prepare good.onnx -o out --dim batch=4:2", USAGE, "empty range"),
    mistake("a --dim twice", "prepare good.onnx -o out --dim batch=1:2 --dim batch=1:2", USAGE, "twice"),
    mistake(
        "a --dim of no --input",
        "prepare good.onnx -o out --input x=float32[n,4] --dim m=1:2",
        USAGE,
        "--dim",
        "m",
    ),
    mistake(
        "an unreadable --range", "prepare good.onnx -o out --range x=a:b", USAGE, "x=a:b", "NAME=LOW:HIGH"
    ),
    mistake("an empty --range", "prepare good.onnx -o out --range x=1:0", USAGE, "empty"),
    mistake("a bad --seed", "prepare good.onnx -o out --seed -1", USAGE, "--seed"),
    mistake("a bad --opset", "prepare good.onnx -o out --opset 99", USAGE, "--opset"),
    mistake("a bad --timeout", "prepare good.onnx -o out --timeout nan", USAGE, "time limit", "nan"),
    mistake("a bad --memory", "prepare good.onnx -o out --memory infGB", USAGE, "infGB"),
    mistake("a --memory below 0", "prepare good.onnx -o out --memory -1GB", USAGE, "memory"),
    mistake("--to", "prepare good.onnx -o out --to tflite", USAGE, "tflite", "choose onnx"),
    mistake("--method", "prepare good.onnx -o out --method trace", USAGE, "trace", "choose auto, copy"),
    mistake(
        "--method of --to",
        f"prepare {MISTAKES}:fine -o out --to onnx --method script",
        USAGE,
        "no method script to onnx",
    ),
    mistake(
        "--weights of a model",
        "prepare good.onnx -o out --weights weights.pt",
        USAGE,
        "--weights goes with a factory",
    ),
    mistake("missing weights", f"prepare {MISTAKES}:fine -o out --weights nothing.pt", USAGE, "nothing.pt"),
    mistake(
        "weights that are a model",
        f"prepare {MISTAKES}:fine -o out --weights good.onnx",
        USAGE,
        "not name a checkpoint",
        "ONNX",
    ),
    mistake("cut weights", f"prepare {MISTAKES}:fine -o out --weights cut.safetensors", REFUSED, "truncated"),
    mistake("--factory-arg of a file", "prepare good.onnx -o out --factory-arg a=1", USAGE, "--factory-arg"),
    mistake(
        "an unreadable --factory-arg", f"prepare {MISTAKES}:fine -o out --factory-arg a", USAGE, "key=value"
    ),
    mistake(
        "--mnnconvert", "prepare good.onnx -o out --mnnconvert good.onnx", USAGE, "an executable", "good.onnx"
    ),
    mistake("the target is a file", "prepare good.onnx -o notes.txt", USAGE, "not a directory"),
    mistake("the target is not empty", "prepare good.onnx -o folder", USAGE, "not empty"),
    mistake(
        "the target is not empty, forced", "prepare good.onnx -o folder --force", USAGE, "never replaced"
    ),
    mistake("the target is a bundle", "prepare good.onnx -o bundle", USAGE, "--force"),
    mistake("the target is here", "prepare good.onnx -o .", USAGE, "current directory"),
    mistake("the target is in a file", "prepare good.onnx -o notes.txt/out", USAGE, "notes.txt"),
]

ONNX = [
    mistake(
        "an unknown input",
        "prepare good.onnx -o out --input z=float32[1,4]",
        USAGE,
        "'z'",
        "inputs of this model: x",
    ),
    mistake(
        "another dtype",
        "prepare good.onnx -o out --input x=float64[1,4]",
        USAGE,
        "dtype",
        "float64",
        "x=float32[batch,4]",
    ),
    mistake(
        "another rank", "prepare good.onnx -o out --input x=float32[1,4,1]", USAGE, "number of dimensions"
    ),
    mistake(
        "a fixed dimension",
        "prepare good.onnx -o out --input x=float32[batch,5]",
        USAGE,
        "fixed dimension",
        "5 instead of 4",
    ),
    mistake(
        "an unknown dimension",
        "prepare good.onnx -o out --dim width=1:2",
        USAGE,
        "'width'",
        "dimensions of this model: batch",
    ),
    mistake(
        "an unknown range", "prepare good.onnx -o out --range z=0:1", USAGE, "'z'", "inputs of this model: x"
    ),
    mistake("no samples", "prepare good.onnx -o out --samples nothing.npz", USAGE, "no samples"),
    mistake(
        "an empty directory of samples",
        "prepare good.onnx -o out --samples samples",
        USAGE,
        "not contain .npz",
    ),
    mistake("samples of no arrays", "prepare good.onnx -o out --samples notes.txt", USAGE, ".npz, .npy"),
    mistake(
        "samples by other names",
        "prepare good.onnx -o out --samples other-name.npz",
        USAGE,
        "other-name.npz: z",
        "x",
    ),
    mistake(
        "samples of another shape",
        "prepare good.onnx -o out --samples other-shape.npz",
        USAGE,
        "[1, 5]",
        "x=float32[batch,4]",
    ),
    mistake(
        "samples of another dtype", "prepare good.onnx -o out --samples other-dtype.npz", USAGE, "complex64"
    ),
    mistake("cut samples", "prepare good.onnx -o out --samples cut.npz", REFUSED, "cut.npz"),
    mistake("a text input", "prepare text.onnx -o out", REFUSED, "tensor(string)", "plain tensors"),
    mistake(
        "a sequence input", "prepare sequence.onnx -o out", REFUSED, "seq(tensor(float))", "plain tensors"
    ),
    mistake("no input", "prepare closed.onnx -o out", REFUSED, "no input"),
    mistake("an operator of nobody", "prepare private.onnx -o out", REFUSED, "onnxruntime can't load", "Own"),
    mistake(
        "too little memory", "prepare good.onnx -o out --memory 1MB", REFUSED, "more than 1 MiB", "--memory"
    ),
]

TORCH = [
    mistake(
        "an import that fails",
        "prepare config.py:build -o out",
        USAGE,
        "could not be imported",
        "nothing_of_this_name",
    ),
    mistake("no such callable", f"prepare {MISTAKES}:nothing -o out", USAGE, "no callable nothing", "fine"),
    mistake(
        "a factory that raises",
        f"prepare {MISTAKES}:raises -o out",
        USAGE,
        "ValueError",
        "the weather is bad",
        "mistakes.py:",
    ),
    mistake("a factory that exits", f"prepare {MISTAKES}:leaves -o out", USAGE, "SystemExit", "mistakes.py:"),
    mistake(
        "a factory that gives text",
        f"prepare {MISTAKES}:gives_text -o out",
        USAGE,
        "a torch.nn.Module",
        "str",
    ),
    mistake(
        "a factory that needs arguments",
        f"prepare {MISTAKES}:needs -o out",
        USAGE,
        "width, depth",
        "--factory-arg",
    ),
    mistake(
        "an unknown argument",
        f"prepare {MISTAKES}:needs -o out --factory-arg height=2",
        USAGE,
        "height",
        "width, depth",
    ),
    mistake(
        "an argument of another type",
        f"prepare {MISTAKES}:needs -o out --factory-arg width=x --factory-arg depth=2",
        USAGE,
        "TypeError",
    ),
    mistake(
        "no inputs",
        f"prepare {MISTAKES}:without_inputs -o out",
        USAGE,
        "not known",
        "forward(x)",
        "--input 'x=float32",
    ),
    mistake("no inputs of a script", "prepare script.pt -o out", USAGE, "not known", "--input"),
    mistake(
        "no such parameter",
        f"prepare {MISTAKES}:fine -o out --input y=float32[1,1,8,8]",
        USAGE,
        "'y'",
        "its parameters: input",
    ),
    mistake(
        "inputs of another shape",
        f"prepare {MISTAKES}:fine -o out --input input=float32[1,3,8,8]",
        REFUSED,
        "channels",
        "--input",
    ),
    mistake(
        "inputs of another dtype",
        f"prepare {MISTAKES}:fine -o out --input input=int64[1,1,8,8]",
        REFUSED,
        "own signature",
    ),
    mistake(
        "a required parameter left out",
        f"prepare {MISTAKES}:gives_too_many -o out",
        USAGE,
        "more example inputs",
    ),
    mistake(
        "an example that is no tensor",
        f"prepare {MISTAKES}:gives_a_list_as_input -o out",
        USAGE,
        "not a tensor",
        "list",
    ),
    mistake(
        "an example of bfloat16", f"prepare {MISTAKES}:gives_bfloat16 -o out", USAGE, "bfloat16", "float32"
    ),
    mistake("a model without values", f"prepare {MISTAKES}:on_meta -o out", REFUSED, "meta", "weight"),
    mistake(
        "outputs that are no tensors", f"prepare {MISTAKES}:returns_text -o out", REFUSED, "label", "str"
    ),
    mistake("no outputs", f"prepare {MISTAKES}:returns_nothing -o out", REFUSED, "no tensor"),
    mistake(
        "a forward that raises", f"prepare {MISTAKES}:raises_in_forward -o out", USAGE, "no images today"
    ),
    mistake(
        "a forward that refuses values",
        f"prepare {MISTAKES}:raises_for_some_values -o out",
        REFUSED,
        "must not be negative",
        "--range",
    ),
    mistake(
        "weights that don't fit",
        f"prepare {MISTAKES}:fine -o out --weights foreign.pt",
        USAGE,
        "missing from the checkpoint (1): 0.bias",
        "unexpected in the checkpoint (1): 2.bias",
        "misshapen (1): 0.weight: checkpoint [4, 1, 5, 5] vs model [4, 1, 3, 3]",
    ),
    mistake(
        "a step that hangs",
        f"prepare {MISTAKES}:sleeps -o out --timeout 1.5",
        REFUSED,
        "took longer than 1.5 s",
        "--timeout",
    ),
    mistake(
        "a step that hoards",
        f"prepare {MISTAKES}:hoards -o out --memory 700MB",
        REFUSED,
        "more than 700 MiB",
        "--memory",
    ),
    mistake(
        "a step that crashes",
        f"prepare {MISTAKES}:crashes -o out",
        REFUSED,
        "SIGSEGV",
        "running the reference",
    ),
    mistake("a step that quits", f"prepare {MISTAKES}:quits -o out", REFUSED, "exit status 7"),
]


def named(mistakes: list[Mistake]) -> Any:
    return pytest.mark.parametrize("made", mistakes, ids=[m.name for m in mistakes])


def check(result: Result, code: int, words: tuple[str, ...]) -> dict[str, Any]:
    """One message with a way on, as text and as JSON; the exit code in both."""
    assert result.code == code, result.err
    assert "Traceback" not in result.err
    document = result.document()
    assert list(document) == ["error"]
    error: dict[str, Any] = document["error"]
    kind = {USAGE: "usage", REFUSED: "refused", INTERRUPTED: "interrupted"}[code]
    assert (error["kind"], error["exit_code"]) == (kind, code)
    assert set(error) == {"kind", "what", "seen", "next", "exit_code"}
    assert error["what"]
    assert error["next"]
    for word in words:
        assert word in result.err, result.err
        assert word in f"{error['what']} {error['seen']} {error['next']}", error
    return error


def make(made: Mistake, place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(place)
    before = {p: p.stat().st_mtime_ns for p in place.rglob("*")}
    check(call(*made.line.split(), "--json"), made.code, made.words)
    assert {p: p.stat().st_mtime_ns for p in place.rglob("*")} == before, "something was written"


@named(LIGHT)
def test_before_anything_runs(made: Mistake, place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A worker reads the file, within limits; none that has a framework is asked for."""

    def started(worker: Worker, **places: Any) -> Any:
        assert not worker.packages, "a framework's worker was asked for"
        return launch.launch(worker, **places)

    monkeypatch.setattr(host, "launch", started)
    make(made, place, monkeypatch)


@named(ONNX)
def test_with_an_onnx_model(made: Mistake, place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make(made, place, monkeypatch)


@named(TORCH)
def test_with_a_torch_model(made: Mistake, place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make(made, place, monkeypatch)


def test_a_trusted_module_is_loaded(place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The file that was refused, and not executed, is loaded with --trust."""
    monkeypatch.chdir(place)
    assert not list(place.rglob("executed"))
    assert (
        prepared("module.pt", tmp_path / "out", "--trust", "--input", "input=float32[1,1,8,8]").source.kind
        == "torch-module"
    )
    result = call(
        "prepare", "evil.pt", "-o", tmp_path / "out", "--force", "--input", "input=float32[1,1,8,8]", "--json"
    )
    check(result, REFUSED, ("posix.system", "--trust"))
    assert not list(place.rglob("executed"))


def test_a_script_that_leaves_when_imported(tmp_path: Path) -> None:
    (tmp_path / "train.py").write_text("import sys\nsys.exit('usage: train.py DATA')\n")
    check(
        call("prepare", f"{tmp_path / 'train.py'}:build", "-o", tmp_path / "out", "--json"),
        USAGE,
        ("could not be imported", "usage: train.py"),
    )


def test_the_operator_that_mnn_refuses_is_named(place: Path, tmp_path: Path) -> None:
    """A verdict is no error: the bundle is written, and says what MNN does not take."""
    result = call("prepare", place / "hardmax.onnx", "-o", tmp_path / "out", "--no-repair", "--json")
    assert result.code == REFUSED
    assert result.document()["verdict"] == "refused"
    manifest = prepared(place / "hardmax.onnx", tmp_path / "out", "--no-repair", "--force")
    (check,) = checks_of(manifest, "mnn_convert")
    assert "Hardmax" in check.reason
    assert "Hardmax" in check.subject
    assert "the_peak" in check.reason + check.subject
    assert manifest.mnn is None


@pytest.mark.parametrize("command", ["prepare", "inspect", "verify", "report", "doctor"])
def test_help(command: str) -> None:
    result = call(command, "--help")
    assert (result.code, result.err) == (0, "")
    assert f"Usage: mnnprep {command}" in result.out


def test_as_a_program(place: Path, tmp_path: Path) -> None:
    """What a shell sees: the code, the message on stderr, nothing on stdout; with --json one document
    there.
    """
    result = program("prepare", "page.onnx", "-o", tmp_path / "out", cwd=place)
    assert (result.code, result.out) == (REFUSED, "")
    assert result.err.startswith("refused: ")
    assert [line.split(":")[0].strip() for line in result.err.splitlines()] == ["refused", "seen", "next"]
    check(program("prepare", "page.onnx", "-o", tmp_path / "out", "--json", cwd=place), REFUSED, ("HTML",))
    bare = program(cwd=place)
    assert bare.code == USAGE
    assert "Commands:" in bare.out + bare.err
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("encoding", ["utf-8", "ascii"])
def test_a_name_that_is_no_text(tmp_path: Path, encoding: str) -> None:
    name = os.fsdecode(b"\xff\xc3\xa9.onnx")
    (tmp_path / name).write_bytes((matmul(tmp_path / "good.onnx")).read_bytes()[:-20])
    env = environment(PYTHONIOENCODING=encoding, PYTHONUTF8="0")
    for arguments in (["inspect", name], ["prepare", name, "-o", "out"]):
        check(program(*arguments, "--json", cwd=tmp_path, env=env), REFUSED, ("truncated",))
    (tmp_path / name).write_bytes((tmp_path / "good.onnx").read_bytes())
    shown = json.loads(program("inspect", name, "--json", cwd=tmp_path, env=env).out)
    assert (shown["kind"], shown["path"]) == ("onnx", "\\udcff\xe9.onnx")
    for arguments in (["prepare", name, "-o", "out"], ["check", name]):
        check(program(*arguments, "--json", cwd=tmp_path, env=env), USAGE, ("not valid UTF-8",))
    result = program("prepare", "good.onnx", "-o", os.fsdecode(b"\xff"), cwd=tmp_path, env=env)
    assert result.code == 0, result.err
    assert "PROVEN" in result.out


def test_a_missing_extra(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    installed = deps.installed
    monkeypatch.setattr(deps, "installed", lambda module: module != "torch" and installed(module))
    result = call("prepare", f"{MISTAKES}:fine", "-o", tmp_path / "out", "--json")
    check(result, REFUSED, ("torch", "not installed", "pip install 'mnnprep[torch]'"))
    assert not (tmp_path / "out").exists()


@pytest.fixture
def temporary(tmp_path: Path) -> Path:
    (tmp_path / "tmp").mkdir()
    return tmp_path / "tmp"


@pytest.fixture
def heard() -> Iterator[None]:
    """Programs started within hear the signals that end a program, also where these tests do not: in the
    background, under nohup.
    """
    kept = {
        number: signal.signal(number, signal.SIG_DFL)
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    }
    yield
    for number, handler in kept.items():
        signal.signal(number, handler)


@pytest.mark.usefixtures("heard")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_an_interrupt_leaves_everything_as_it_was(
    place: Path, tmp_path: Path, temporary: Path, number: signal.Signals
) -> None:
    """Ctrl-C while the reference runs, or what ends a program: the old bundle is whole, no process and no
    scratch is left.
    """
    target, told = tmp_path / "out", tmp_path / "told"
    prepared(place / "good.onnx", target)
    before = tree(target)
    options = ["--factory-arg", f"file={told}", "-o", target, "--force", "--json"]
    process = subprocess.Popen(
        [sys.executable, "-m", "mnnprep", "prepare", f"{MISTAKES}:tells_and_sleeps", *options],
        env=environment(TMPDIR=str(temporary)),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        start_new_session=True,
        text=True,
    )
    try:
        deadline = time.monotonic() + 60
        while not (told.exists() and told.read_text()) and time.monotonic() < deadline:
            time.sleep(0.05)
        started = psutil.Process(process.pid).children(recursive=True)
        assert int(told.read_text()) in [p.pid for p in started]
        os.killpg(process.pid, number)
        out, err = process.communicate(timeout=30)
    finally:
        process.kill()
    if number == signal.SIGINT:
        check(Result(process.returncode, out, err), INTERRUPTED, ("interrupted",))
    else:
        assert (process.returncode, out) == (128 + number, "")
    assert tree(target) == before
    assert [p.name for p in tmp_path.iterdir() if p.name not in ("out", "told", "tmp")] == []
    psutil.wait_procs(started, timeout=5)
    assert [p for p in started if p.is_running() and p.status() != psutil.STATUS_ZOMBIE] == []
    assert list(temporary.iterdir()) == []


def test_a_refusal_leaves_no_scratch(temporary: Path, tmp_path: Path) -> None:
    result = program(
        "prepare", f"{MISTAKES}:crashes", "-o", tmp_path / "out", env=environment(TMPDIR=str(temporary))
    )
    assert result.code == REFUSED
    assert list(temporary.iterdir()) == []
    assert not (tmp_path / "out").exists()
