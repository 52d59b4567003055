"""The conversion step, with the package's converter and with executables that lie."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import msgspec
import onnx
import pytest

from evaluation.nets.mnn_models import DATA, SEED, crashing_lstm, floats, matmul, node, save
from mnnprep.errors import RefusedError
from mnnprep.mnn.boundary import EXTRA_INFO, read_boundary
from mnnprep.mnn.capture import without_place_and_time
from mnnprep.mnn.convert import (
    CONVERT,
    Converted,
    ConvertJob,
    Fault,
    Mishap,
    has_frontend,
    judge,
    refused_ops,
)
from mnnprep.mnn.info import MnnInfo, MnnTensor, parse_info
from mnnprep.mnn.names import match_names
from mnnprep.wire.flatbuffer import root
from mnnprep.workers.failure import StepFailed
from mnnprep.workers.host import Host
from mnnprep.workers.step import Worker
from support.command import answer


@pytest.fixture(scope="module")
def host(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Host]:
    with Host(Worker("test", ("numpy", "_tools")), scratch=tmp_path_factory.getbasetemp()) as host:
        yield host


def run_convert(
    host: Host,
    model: Path,
    directory: Path,
    *,
    frontend: str = "ONNX",
    converter: str = "",
    limit: float = 60.0,
) -> Converted:
    directory.mkdir(exist_ok=True)
    job = ConvertJob(
        model=str(model),
        frontend=frontend,
        uuid_seed=SEED,
        directory=str(directory),
        converter=converter,
        timeout=limit,
    )
    return host.run(CONVERT, job, timeout=120).value


def wrapper(path: Path, body: str) -> str:
    """An executable Python script, taking MNNConvert's options."""
    path.write_text(
        f"#!{sys.executable}\nimport os, sys, time\noutput = sys.argv[sys.argv.index('--MNNModel') +"
        f" 1]\n{body}\n"
    )
    path.chmod(path.stat().st_mode | stat.S_IXUSR)
    return str(path)


PASS_ON = "import _tools; _tools.mnnconvert(sys.argv)"


def test_a_model_converts_and_tells_its_names(host: Host, tmp_path: Path) -> None:
    done = run_convert(host, matmul(tmp_path / "m.onnx"), tmp_path / "out")
    assert done.ok, done
    assert not done.reason
    assert done.file is not None
    assert done.file.path == str(tmp_path / "out" / "model.mnn")
    assert done.weights is None
    assert done.inputs == [MnnTensor("x", "NCHW", [1, 4], "float32")]
    assert done.outputs == ["y"]
    assert done.version
    assert [p.name for p in (tmp_path / "out").iterdir()] == ["model.mnn"]


@pytest.mark.parametrize("name", ["conv-trace", "conv1d-trace", "attention-script", "if-script"])
def test_the_bytes_say_what_mnn_says(host: Host, tmp_path: Path, name: str) -> None:
    """Of files that other converters wrote, too."""
    done = run_convert(host, matmul(tmp_path / "m.onnx"), tmp_path / "out")
    assert done.file is not None
    for path in (done.file.path, str(DATA / f"{name}.mnn")):
        code = (
            "from mnnprep.mnn.info import read_info; import msgspec; answer ="
            f" msgspec.to_builtins(read_info({path!r}))"
        )
        info, read = msgspec.convert(answer(code), MnnInfo), read_boundary(path)
        assert [(t.name, t.layout, t.dtype) for t in read.inputs] == [
            (t.name, t.layout, t.dtype) for t in info.inputs
        ]
        assert (read.outputs, read.version) == (info.outputs, info.version)


def test_a_file_whose_bytes_do_not_say_is_shown_to_mnn(host: Host, tmp_path: Path) -> None:
    older = run_convert(host, matmul(tmp_path / "m.onnx"), tmp_path / "one")
    assert older.file is not None
    data = bytearray(Path(older.file.path).read_bytes())
    place = root(data).place(EXTRA_INFO)
    unsaid = data[:place] + b"\xff\xff\xff\x7f" + data[place + 4 :]  # leads out of the file
    (tmp_path / "unsaid.mnn").write_bytes(unsaid)
    with pytest.raises(RefusedError):
        read_boundary(str(tmp_path / "unsaid.mnn"))
    body = f"import shutil; shutil.copyfile({str(tmp_path / 'unsaid.mnn')!r}, output)"
    done = run_convert(
        host, matmul(tmp_path / "m.onnx"), tmp_path / "two", converter=wrapper(tmp_path / "convert", body)
    )
    assert (done.ok, done.reason) == (False, "the converter wrote a file that MNN can't open")


def test_two_conversions_give_the_same_bytes(host: Host, tmp_path: Path) -> None:
    first = run_convert(host, matmul(tmp_path / "one.onnx"), tmp_path / "one")
    second = run_convert(host, matmul(tmp_path / "another name.onnx"), tmp_path / "two")
    assert first.file is not None
    assert second.file is not None
    assert first.file.sha256 == second.file.sha256


@pytest.mark.parametrize(
    ("nodes", "outputs"),
    [
        ([node("Relu", ["x"], ["y"])], ["y", "x"]),
        ([node("Relu", ["x"], ["y"]), node("Relu", ["x"], ["z"])], ["y", "z"]),
        ([node("Relu", ["x"], ["y"]), node("Identity", ["y"], ["z"])], ["z", "y"]),
    ],
    ids=["an input passed through", "two identical outputs", "an identity"],
)
def test_onnx_names_and_their_order_are_kept(
    host: Host, tmp_path: Path, nodes: list[onnx.NodeProto], outputs: list[str]
) -> None:
    model = save(
        tmp_path / "m.onnx", nodes, [floats("x", "batch", 4)], [floats(name, "batch", 4) for name in outputs]
    )
    done = run_convert(host, model, tmp_path / "out")
    assert done.ok, done
    assert done.outputs == outputs


def test_unsupported_operators_are_named_and_a_stale_output_is_not_believed(
    host: Host, tmp_path: Path
) -> None:
    nodes = [node("Hardmax", ["x"], ["y"]), node("Foo", ["x"], ["z"], domain="my.domain")]
    model = save(
        tmp_path / "m.onnx",
        nodes,
        [floats("x", "batch", 4)],
        [floats("y", "batch", 4), floats("z", "batch", 4)],
        domains=["my.domain"],
    )
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "model.mnn").write_bytes(b"an older model")
    done = run_convert(host, model, tmp_path / "out")
    assert not done.ok
    assert done.refused_ops == ["Foo", "Hardmax"]
    assert done.reason == "MNN does not support these operators: Foo, Hardmax"
    assert "Converted Failed!" in done.log
    assert not list((tmp_path / "out").iterdir())


@pytest.mark.parametrize(
    "content", [b"not a model at all " * 10, b"", None], ids=["junk", "empty", "missing"]
)
def test_what_is_no_model_is_refused(host: Host, tmp_path: Path, content: bytes | None) -> None:
    if content is not None:
        (tmp_path / "m.onnx").write_bytes(content)
    done = run_convert(host, tmp_path / "m.onnx", tmp_path / "out")
    assert not done.ok
    assert done.reason.startswith("the converter failed: ")
    assert "m.onnx" in done.log
    assert str(tmp_path) not in done.log + done.reason


def test_a_crash_of_the_converter_is_told_with_its_signal(host: Host, tmp_path: Path) -> None:
    with pytest.raises(StepFailed) as caught:
        run_convert(host, crashing_lstm(tmp_path / "m.onnx"), tmp_path / "out")
    assert caught.value.fate == "crash"
    assert "SIG" in caught.value.reason
    assert "while converting with MNN (ONNX)" in caught.value.reason
    assert caught.value.log


def test_what_native_code_printed_before_a_crash_is_in_the_log(tmp_path: Path) -> None:
    body = (
        "import ctypes, os\nfrom mnnprep.mnn.capture import captured\nlibc = ctypes.CDLL(None)\nwith"
        " captured():\n"
    )
    body += "    libc.puts(b'the last line')\n    os.kill(os.getpid(), 9)\n"
    with (tmp_path / "log.txt").open("ab") as log:
        process = subprocess.run(
            [sys.executable, "-c", body],
            stdout=log,
            stderr=log,
            env={"PYTHONPATH": os.pathsep.join(sys.path)},
            check=False,
        )
    assert process.returncode == -9
    assert (tmp_path / "log.txt").read_text() == "the last line\n"


@pytest.mark.parametrize("to_one_file", [True, False])
def test_captured_reads_what_python_and_c_print(tmp_path: Path, to_one_file: bool) -> None:
    body = (
        "import ctypes, sys\nfrom mnnprep.mnn.capture import captured\nlibc ="
        " ctypes.CDLL(None)\nprint('before')\nwith captured() as printed:\n"
    )
    body += (
        "    print('from Python')\n    print('an error', file=sys.stderr)\n    libc.puts(b'from"
        " C')\nprint('after')\n"
    )
    body += "open('seen.txt', 'w').write(printed.text)\n"
    with (
        (tmp_path / "out.txt").open("ab") as out,
        (tmp_path / ("out.txt" if to_one_file else "err.txt")).open("ab") as err,
    ):
        environment = {"PYTHONPATH": os.pathsep.join(sys.path)}
        subprocess.run(
            [sys.executable, "-c", body], stdout=out, stderr=err, env=environment, cwd=tmp_path, check=True
        )
    assert sorted((tmp_path / "seen.txt").read_text().splitlines()) == ["an error", "from C", "from Python"]
    outside = (tmp_path / "out.txt").read_text().split()
    assert (outside[0], outside[-1]) == ("before", "after")
    assert ("Python" in outside) == to_one_file  # a worker's log keeps it all


def test_external_data_is_found_beside_the_model_and_its_absence_is_not_a_success(
    host: Host, tmp_path: Path
) -> None:
    inline = run_convert(host, matmul(tmp_path / "inline.onnx"), tmp_path / "inline")
    model = onnx.load(tmp_path / "inline.onnx")
    onnx.save(model, tmp_path / "m.onnx", save_as_external_data=True, location="m.data", size_threshold=0)
    external = run_convert(host, tmp_path / "m.onnx", tmp_path / "external")
    assert external.file is not None
    assert inline.file is not None
    assert external.file.sha256 == inline.file.sha256
    (tmp_path / "m.data").unlink()
    lost = run_convert(host, tmp_path / "m.onnx", tmp_path / "lost")
    assert not lost.ok  # MNN prints success, and takes what is in memory for the weights
    assert lost.reason == "the converter failed: Can't open file:m.data"
    assert "Converted Success!" in lost.log


def test_an_mnn_model_converts_to_itself(host: Host, tmp_path: Path) -> None:
    first = run_convert(host, matmul(tmp_path / "m.onnx"), tmp_path / "one")
    second = run_convert(host, tmp_path / "one" / "model.mnn", tmp_path / "two", frontend="MNN")
    assert second.ok
    assert (second.inputs, second.outputs) == (first.inputs, first.outputs)


def test_the_package_has_no_torch_frontend(host: Host, tmp_path: Path) -> None:
    done = run_convert(host, DATA / "conv-trace.pt", tmp_path / "out", frontend="TORCH")
    assert not done.ok
    assert done.frontend_missing
    assert not has_frontend(done.log)
    assert done.reason == "this converter was built without the frontend for this format"


def test_another_converter_gives_the_same(host: Host, tmp_path: Path) -> None:
    model = matmul(tmp_path / "m.onnx")
    own = run_convert(host, model, tmp_path / "own")
    other = run_convert(host, model, tmp_path / "other", converter=wrapper(tmp_path / "MNNConvert", PASS_ON))
    assert other.ok, other
    assert own.file is not None
    assert other.file is not None
    assert other.file.sha256 == own.file.sha256
    assert (other.inputs, other.outputs) == (own.inputs, own.outputs)


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        ("print('Converted Success!')", "the converter wrote no file, though it printed success"),
        ("open(output, 'w').close()", "the converter wrote no file"),
        (f"{PASS_ON}; sys.exit(3)", "the converter ended with exit status 3"),
        (f"{PASS_ON}; os.kill(os.getpid(), 11)", "the converter crashed with SIGSEGV"),
        (
            "open(output, 'wb').write(b'junk' * 99); print('Converted Success!')",
            "the converter wrote a file that MNN can't open",
        ),
        (f"{PASS_ON}; time.sleep(60)", "the converter took longer than 3 s"),
    ],
    ids=["nothing", "an empty file", "exit status", "signal", "junk", "hang"],
)
def test_a_converter_that_lies_is_caught(host: Host, tmp_path: Path, body: str, reason: str) -> None:
    done = run_convert(
        host,
        matmul(tmp_path / "m.onnx"),
        tmp_path / "out",
        converter=wrapper(tmp_path / "MNNConvert", body),
        limit=3,
    )
    assert not done.ok
    assert done.reason == reason
    assert not list((tmp_path / "out").iterdir())


@pytest.mark.parametrize("executable", [False, True], ids=["not executable", "not a program"])
def test_what_is_no_converter_is_a_wrong_call(host: Host, tmp_path: Path, executable: bool) -> None:
    (tmp_path / "MNNConvert").write_bytes(b"\x00\x01")
    (tmp_path / "MNNConvert").chmod(0o755 if executable else 0o644)
    with pytest.raises(StepFailed) as caught:
        run_convert(
            host, matmul(tmp_path / "m.onnx"), tmp_path / "out", converter=str(tmp_path / "MNNConvert")
        )
    assert caught.value.error is not None
    assert caught.value.error.exit_code == 2


def test_the_judgement_of_a_log(tmp_path: Path) -> None:
    assert not judge("...\nConverted Success!\n", wrote=True, success_line=True)
    assert judge("...", wrote=True, success_line=True) == Mishap(Fault.SILENT)
    assert not judge("...", wrote=True, success_line=False)
    told = "[ERROR] Convert error, please check your file format."
    assert judge(f"{told}\nConverted Success!", wrote=True, success_line=True) == Mishap(Fault.TOLD, told)
    assert (
        without_place_and_time(f"[14:27:18] :220: These Op\n[ x ]: 3\n{tmp_path}/c.onnx")
        == "These Op\n[ x ]: 3\nc.onnx"
    )
    assert refused_ops(
        "[14:27:18] :220: These Op Not Support: Torch::lstm | Torch::gru \nConverted Failed!"
    ) == ["gru", "lstm"]


def test_odd_lines_of_info() -> None:
    info = parse_info(
        "Model Inputs:\n[ a b]: c ]: dimensionFormat: NHWC, size: [ -1,2 ], type is int32\n[ s ]:"
        " dimensionFormat: NC4HW4, size: [ ], type is float\nModel Outputs:\n[ a b]: c ]\n[ 42 ]\nModel"
        " Version: 3.6.1 \n"
    )
    assert info.inputs == [
        MnnTensor("a b]: c", "NHWC", [-1, 2], "int32"),
        MnnTensor("s", "NC4HW4", [], "float32"),
    ]
    assert info.outputs == ["a b]: c", "42"]
    assert info.version == "3.6.1"


def test_names_are_matched_by_name_then_by_position() -> None:
    assert match_names(["x", "y"], ["y", "x"], "input").names == {"x": "x", "y": "y"}
    assert match_names(["x", "mask"], ["x.1", "mask.1"], "input").names == {"x": "x.1", "mask": "mask.1"}
    assert match_names(["a", "b", "c"], ["c", "7", "b"], "output").names == {"a": "7", "b": "b", "c": "c"}
    lost = match_names(["x", "unused"], ["x"], "input")
    assert not lost.names
    assert lost.problem == "the inputs can't be matched: the artifact has x, unused, the converted model x"
