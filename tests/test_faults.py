"""A full disk, no descriptor left, a closed stdout: one refusal with its place and a way on, wherever it is
met; never a word against the model.
"""

from __future__ import annotations

import errno
import os
import resource
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import pytest

from evaluation.nets.mnn_models import matmul
from mnnprep.errors import Code, InternalError, RefusedError, SystemFault, UsageError, from_dict
from mnnprep.model.files import atomic_write, save_arrays
from mnnprep.model.request import Limits
from mnnprep.safety import faults
from mnnprep.safety.faults import fault_behind, fault_in
from mnnprep.workers.failure import StepFailed
from mnnprep.workers.pool import Workers
from mnnprep.workers.server import run_step
from mnnprep.workers.step import Step, Worker
from support.command import Result, call, environment, prepared, program

REFUSED = 3
NUMBERS = ("ENOSPC", "EDQUOT", "EMFILE", "ENFILE", "EROFS", "EIO", "EFBIG", "EACCES")


def raised(error: BaseException, cause: BaseException | None = None) -> BaseException:
    try:
        raise error from cause
    except BaseException as caught:
        return caught


@pytest.mark.parametrize("name", NUMBERS)
def test_every_number_is_one_refusal_with_the_path_and_a_way_on(name: str) -> None:
    number = getattr(errno, name)
    found = fault_in(OSError(number, os.strerror(number), "/a/place"))
    assert found is not None
    assert (found.exit_code, found.kind) == (REFUSED, "system")
    assert found.seen == f"/a/place: {os.strerror(number)}"
    assert found.next
    crossed = from_dict(found.to_dict())  # type: ignore[arg-type]
    assert type(crossed) is SystemFault
    assert str(crossed) == str(found)


FULL = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "/scratch/f")


@pytest.mark.parametrize(
    "error",
    [
        raised(RefusedError("the file is damaged"), FULL),
        raised(InternalError("it could not be read"), raised(ValueError("bad"), FULL)),
        RuntimeError("[json.exception] failed writing: No space left on device"),
        raised(
            RefusedError("no"), RuntimeError("h5py: errno = 28, error message = 'No space left on device'")
        ),
        raised(
            InternalError("it failed"),
            StepFailed("error", "the disk is full", error=SystemFault("the disk is full")),
        ),
        MemoryError(),
        OSError(errno.EMFILE, os.strerror(errno.EMFILE)),
    ],
)
def test_a_fault_is_found_behind_other_errors(error: BaseException) -> None:
    assert isinstance(fault_in(error), SystemFault)


@pytest.mark.parametrize(
    "error",
    [
        RefusedError("the file is damaged"),
        FileNotFoundError(errno.ENOENT, "No such file or directory", "x"),
        raised(UsageError("no such file"), FileNotFoundError(errno.ENOENT, "x")),
        raised(
            ValueError("bad"), PermissionError(errno.EACCES, "Permission denied")
        ),  # it went on without that file
        RuntimeError("shape mismatch"),
    ],
)
def test_no_other_error_is_taken_for_one(error: BaseException) -> None:
    assert fault_in(error) is None


def test_what_an_error_does_not_say_is_asked_of_the_disk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    error = RuntimeError("invalid model")
    assert fault_behind(error, str(tmp_path)) is None
    assert list(tmp_path.iterdir()) == []
    monkeypatch.setattr(faults, "no_room", lambda _: errno.ENOSPC)
    found = fault_behind(error, str(tmp_path))
    assert found is not None
    assert found.seen == f"{tmp_path}: No space left on device"


def test_a_write_names_its_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with pytest.raises(OSError, match=r"report\.html"), atomic_write(tmp_path / "report.html"):
        full()
    monkeypatch.setattr("zipfile.ZipFile.open", full)
    with pytest.raises(OSError, match=r"a\.npz"):
        save_arrays(tmp_path / "a.npz", {"x": [1.0]})  # type: ignore[dict-item]


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("faults")
    prepared(matmul(place / "net.onnx"), place / "bundle")
    return place / "bundle"


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Callable[[str], Path]]:
    """Mount a file system of a size, where this user may mount one."""
    place, mounted = tmp_path / "disk", []
    place.mkdir()

    def mount(size: str) -> Path:
        program_ = shutil.which("mount")
        options = ["-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(place)]
        if program_ is None or subprocess.run([program_, *options], capture_output=True).returncode:
            pytest.skip("no file system can be mounted here")
        mounted.append(place)
        return place

    yield mount
    for path in mounted:
        subprocess.run(["umount", str(path)], check=True)


def refused(result: Result, *words: str) -> None:
    """One message of three lines, and exit code 3."""
    assert result.code == REFUSED, result.err
    assert "Traceback" not in result.err
    lines = result.err.splitlines()
    at = next(i for i, line in enumerate(lines) if line.startswith("refused: "))
    assert [line.split(":")[0].strip() for line in lines[at:]] == ["refused", "seen", "next"], result.err
    for word in words:
        assert word in result.err


def test_a_full_target_leaves_nothing(bundle: Path, disk: Callable[[str], Path]) -> None:
    place = disk("32k")
    refused(call("prepare", bundle.parent / "net.onnx", "-o", place / "out"), "the disk is full", str(place))
    assert list(place.iterdir()) == []
    (place / "other").write_bytes(bytes(28 << 10))
    refused(
        call("json", bundle / "model.mnn", "-o", place / "m.json"), "the disk is full", str(place / "m.json")
    )
    assert [p.name for p in place.iterdir()] == ["other"]


@pytest.mark.parametrize("size", ["16k", "64k", "128k"])
def test_a_full_scratch_is_refused_and_nothing_differs(
    bundle: Path, tmp_path: Path, disk: Callable[[str], Path], size: str
) -> None:
    """Met by this process, by the worker, or by what is native in it."""
    place = disk(size)
    for arguments in (["prepare", bundle.parent / "net.onnx", "-o", tmp_path / "out"], ["verify", bundle]):
        result = program(*arguments, env=environment(TMPDIR=str(place)))
        if result.code:
            refused(result, "the disk is full", str(place))
        assert list(place.iterdir()) == []
    assert size == "128k" or not (tmp_path / "out").exists()


@pytest.mark.parametrize(("limit", "value"), [("RLIMIT_NOFILE", 9), ("RLIMIT_FSIZE", 1000)])
@pytest.mark.parametrize("command", ["prepare", "verify", "check", "bisect", "inspect"])
def test_a_limit_of_the_process_is_refused(
    bundle: Path, tmp_path: Path, limit: str, value: int, command: str
) -> None:
    source = bundle.parent / "net.onnx"
    arguments = {
        "prepare": [source, "-o", tmp_path / "out"],
        "verify": [bundle],
        "check": [source, "--sarif", tmp_path / "s"],
        "bisect": [bundle, "-o", tmp_path / "b"],
        "inspect": [source],
    }[command]
    code = (
        f"import resource; resource.setrlimit(resource.{limit}, ({value}, {value})); from mnnprep.cli.main"
        " import main; main()"
    )
    line, env = [sys.executable, "-c", code, command, *map(str, arguments)], environment(TMPDIR=str(tmp_path))
    done = subprocess.run(line, env=env, capture_output=True, text=True, timeout=300)
    if done.returncode:
        refused(Result(done.returncode, done.stdout, done.stderr))
    else:  # small enough for it
        assert command in ("inspect", "check")
    assert {p.name for p in tmp_path.iterdir()} <= {"s"}


def test_a_file_as_large_as_is_allowed_may_lack_its_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Native code does not always look whether all was written."""
    (tmp_path / "job").mkdir()
    path = tmp_path / "job" / "model.mnn"
    path.write_bytes(bytes(100))
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "job"))
    assert not faults.as_large_as_allowed(str(path))
    monkeypatch.setattr(resource, "getrlimit", lambda _: (100, 100))
    assert faults.as_large_as_allowed(str(path))


def test_a_worker_without_room_for_its_reply_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from mnnprep.workers import server

    def full(*_: object) -> int:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(tmp_path / "reply.json"))

    fate = server._undone({"id": "x", "directory": str(tmp_path)}, raised(FULL))  # type: ignore[arg-type]
    assert fate["error"]["kind"] == "system"
    monkeypatch.setattr(server, "resolve", full)
    assert b'"kind":"system"' in run_step("mnnprep.x:y", b"{}")


def test_a_step_that_can_not_be_given_its_job_fails_and_hangs_nobody() -> None:
    with Workers(Limits()) as workers:
        step = Step("mnnprep.workers.server", "doing", Limits, Limits, Worker("test", ("json",)))
        host = workers.warm(step.worker)
        host.ready.result(timeout=60)  # type: ignore[union-attr]
        shutil.rmtree(workers.scratch)
        future = workers.submit(step, Limits())
        with pytest.raises(OSError, match="No such file"):
            future.result(timeout=60)
        workers.scratch.mkdir()
        blocked = StepFailed("error", "full", error=SystemFault("the disk is full"))
        done: Future[Any] = Future()
        done.set_exception(blocked)
        workers._steps.append(done)
        with pytest.raises(SystemFault):
            workers.require_sound()
        workers.sweep()
        workers.require_sound()


def shell(line: str, *arguments: str | Path) -> subprocess.CompletedProcess[str]:
    """*line* with ``mnnprep`` as ``$0`` with the arguments."""
    quoted = line.replace("MNNPREP", f'"{sys.executable}" -m mnnprep')
    return subprocess.run(
        ["bash", "-c", quoted, "bash", *map(str, arguments)],
        env=environment(),
        capture_output=True,
        text=True,
        timeout=120,
    )


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="no device that is full")
@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("MNNPREP --version >/dev/full", "No space left on device"),
        ("MNNPREP --version >&-", "standard output is closed"),
        ("MNNPREP --version 1</dev/null", "Bad file descriptor"),
        ('MNNPREP report "$1" --json >/dev/full', "No space left on device"),
    ],
)
def test_a_stdout_that_can_not_be_written_to(bundle: Path, line: str, words: str) -> None:
    done = shell(line, bundle)
    assert done.stdout == ""
    refused(Result(done.returncode, "", done.stderr), words)


def test_an_error_is_told_where_stdout_is_full(tmp_path: Path) -> None:
    done = shell('MNNPREP inspect "$1" --json >/dev/full', tmp_path / "nothing")
    assert (done.returncode, done.stderr.count("error: ")) == (2, 1)
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("line", ["MNNPREP inspect nothing 2>&-", "MNNPREP inspect nothing 2>/dev/full"])
def test_a_stderr_that_is_closed_or_full_changes_no_exit_code(line: str) -> None:
    assert shell(line).returncode == 2


def test_a_reader_that_has_gone_changes_no_exit_code(tmp_path: Path) -> None:
    (tmp_path / "no").mkdir()
    assert shell('MNNPREP --help | true; exit "${PIPESTATUS[0]}"').returncode == 0
    done = shell('MNNPREP verify "$1" --json | true; exit "${PIPESTATUS[0]}"', tmp_path / "no")
    assert done.returncode == 2


def test_the_code_of_an_error_crosses_the_boundary_and_is_not_shown() -> None:
    told = UsageError("the factory raised ValueError", code=Code.FACTORY_RAISED)
    crossed = from_dict(told.to_message())  # type: ignore[arg-type]
    assert (crossed.code, crossed.what) == (Code.FACTORY_RAISED, told.what)
    assert "code" not in told.to_dict()
    assert from_dict(UsageError("another").to_message()).code is None  # type: ignore[arg-type]
