"""A run on another host: what comes back, what is told where nothing does, and what is left there."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from evaluation.nets.mnn_models import WEIGHT, case, matmul
from mnnprep.attempt.target_verifier import judged
from mnnprep.comparison.tolerance import Tolerance
from mnnprep.errors import UsageError
from mnnprep.evidence.check import Status
from mnnprep.mnn.run import MnnRunJob
from mnnprep.model.files import file_ref, load_arrays, save_arrays
from mnnprep.model.messages import RunResult
from mnnprep.model.request import Limits
from mnnprep.model.ssh_host import Host, host_of
from mnnprep.model.target import Target
from mnnprep.targets import run as targets
from mnnprep.targets.outputs import DeviceRuns, Settings
from mnnprep.targets.ssh import NotRun, run_over_ssh
from mnnprep.workers import host as workers
from mnnprep.workers.pool import Workers
from support.converting import converted
from support.fake_ssh import fake_host
from support.unrounded import Unrounded

BOARD = Host(name="board")
Fault = dict[str, object]


@pytest.fixture
def job(host: workers.Host, tmp_path: Path) -> MnnRunJob:
    """Two cases of a net, whose outputs come to a directory of the test's."""
    return MnnRunJob(
        model=converted(host, matmul(tmp_path / "m.onnx")),
        cases=[case(tmp_path, i, {"x": np.full((2, 4), i + 1, np.float32)}) for i in range(2)],
        input_names={"x": "x"},
        output_names={"y": "y"},
        layouts={},
        directory=str(tmp_path / "run"),
    )


def run(job: MnnRunJob, at: Host = BOARD, settings: Settings | None = None) -> object:
    return run_over_ssh(at, job, settings or Settings(), timeout=120, python=sys.executable)


def test_the_outputs_come_back_and_nothing_is_left(
    job: MnnRunJob, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake = fake_host(monkeypatch, tmp_path / "host", greets="Welcome to the board")
    settings = Settings(precision="low", memory="low", threads=2)
    ran = run_over_ssh(BOARD, job, settings, timeout=120, bundle="f" * 64, python=sys.executable)
    assert (ran.settings, ran.bundle) == (settings, "f" * 64)
    assert not ran.shared.errors
    assert not ran.fresh.errors
    for index in range(2):
        array = load_arrays(ran.shared.outputs[str(index)].path)["y"]
        np.testing.assert_allclose(
            array, np.full((2, 4), index + 1, np.float32) @ WEIGHT, rtol=1e-5, atol=1e-6
        )
    assert fake.left == []


@pytest.mark.parametrize("precision", ["high", "low"])
@pytest.mark.parametrize(("again", "status"), [(1.0, Status.PASSED), (2.0, Status.FAILED)])
def test_the_second_run_there_counts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, precision: str, again: float, status: Status
) -> None:
    values = {"y": np.arange(1, 5, dtype=np.float32)}
    cases = [case(tmp_path, 0, {"x": np.zeros(1, np.float32)}, values)]

    def giving(name: str, factor: float) -> RunResult:
        save_arrays(tmp_path / name, {"y": values["y"] * np.float32(factor)})
        return RunResult(outputs={"0": file_ref(tmp_path / name)}, errors={})

    settings = Settings(precision=precision)
    runs = DeviceRuns(
        bundle="", settings=settings, engine="", shared=giving("a.npz", 1.0), fresh=giving("b.npz", again)
    )
    monkeypatch.setattr(targets, "run_over_ssh", lambda *_, **__: runs)
    job = MnnRunJob(
        model="", cases=cases, input_names={}, output_names={}, layouts={}, directory=str(tmp_path)
    )
    with Workers(Limits()) as pool:
        started = targets.start(pool, Target.parse(f"ssh://board,precision={precision}"), job)
        check = judged(started, Tolerance(), None, Unrounded()).check
    assert check.status is status, check.reason
    assert ("a second run" in check.reason) is (status is Status.FAILED)


def test_nobody_is_asked_for_anything(
    job: MnnRunJob, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake = fake_host(monkeypatch, tmp_path / "host")
    run(job, Host(name="[::1]", user="pi", port=2222))
    assert [call[0] for call in fake.calls] == ["ssh", "scp", "ssh", "scp", "ssh"]
    for name, *words in fake.calls:
        assert "BatchMode=yes" in words
        assert words[words.index("-p" if name == "ssh" else "-P") + 1] == "2222"
        target, *_ = [w for w in words[words.index("--") + 1 :] if "pi@" in w]
        assert target.startswith("pi@::1" if name == "ssh" else "pi@[::1]:")


# What goes wrong: how, what is told, whether the host's directory is taken away.
FAULTS: dict[str, tuple[Fault, str, bool]] = {
    "no connection": (
        {"on": "ssh mktemp", "code": 255, "says": "ssh: connect to host board port 22: Connection refused"},
        "board could not make a directory: ssh: connect to host board port 22: Connection refused",
        True,
    ),
    "no such directory": ({"on": "ssh mktemp", "code": 0}, "the host made no temporary directory: it", True),
    "no room there": (
        {"on": "scp ", "code": 1, "says": "scp: write remote: No space left on device"},
        "board could not copy the model and the cases there: scp: write remote: No space left on device",
        True,
    ),
    "no MNN there": (
        {"on": "mnnprep_run.py", "code": 3, "says": "mnnprep-run: MNN can't be imported"},
        "board could not run the model: mnnprep-run: MNN can't be imported",
        True,
    ),
    "no Python there": (
        {"on": "mnnprep_run.py", "code": 127, "says": "sh: 1: python3: not found"},
        "board could not run the model: sh: 1: python3: not found",
        True,
    ),
    "a broken connection": (
        {"on": "mnnprep_run.py", "code": 255},
        "could not run the model: exit code 255",
        True,
    ),
    "nothing to copy back": (
        {"on": "/outputs", "code": 1, "says": "scp: outputs: No such file or directory"},
        "board could not copy the outputs back: scp: outputs: No such file or directory",
        True,
    ),
    "half the outputs": (
        {"on": "/outputs", "removes": "fresh/1"},
        "an output that the program wrote is missing (fresh/1/0.npy (y))",
        True,
    ),
    "no cleaning up": ({"on": "ssh rm", "code": 255}, "", False),
}


@pytest.mark.parametrize("name", FAULTS)
def test_every_failure_is_one_line(
    job: MnnRunJob, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    fault, words, clean = FAULTS[name]
    fake = fake_host(monkeypatch, tmp_path / "host", **fault)
    if words:
        with pytest.raises(NotRun) as told:
            run(job)
        assert words in str(told.value)
        assert "\n" not in str(told.value)
    else:
        run(job)
    assert (fake.left == []) is clean


@pytest.mark.parametrize(
    ("on", "doing"), [("mktemp", "make a directory"), ("mnnprep_run.py", "run the model")]
)
def test_a_call_that_hangs_is_ended(
    job: MnnRunJob, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, on: str, doing: str
) -> None:
    """The clock is the test's: the time is over as soon as the call that hangs is waited for."""
    fake = fake_host(monkeypatch, tmp_path / "host", on=on, hangs=True)
    hanging: list[subprocess.Popen[bytes]] = []

    class Waited(subprocess.Popen[bytes]):
        def communicate(self, *given: Any, timeout: float | None = None) -> tuple[bytes, bytes]:
            if on in " ".join(map(str, self.args)) and self not in hanging:  # type: ignore[arg-type]
                hanging.append(self)
                raise subprocess.TimeoutExpired(self.args, timeout or 0)
            return super().communicate(*given, timeout=timeout)

    monkeypatch.setattr(subprocess, "Popen", Waited)
    with pytest.raises(NotRun, match=f"board took too long to {doing}"):
        run(job)
    assert [process.poll() for process in hanging] == [-signal.SIGKILL]
    assert fake.left == []


def test_a_crash_there_is_the_case_s_and_not_the_host_s(
    job: MnnRunJob, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The interpreter is a script that lets the program begin, and dies as by a segmentation fault."""
    fake_host(monkeypatch, tmp_path / "host")
    script = tmp_path / "python"
    facts = ("bundle ", "backend cpu", "precision high", "memory normal", "threads 1", "engine 3")
    record = "\\n".join(("mnnprep-run 1", *facts, ""))
    script.write_text(
        f"#!/bin/sh\nmkdir -p outputs/shared/0\nprintf '{record}' >outputs/run.txt\nkill -SEGV $$\n"
    )
    script.chmod(0o755)
    ran = run_over_ssh(BOARD, job, Settings(), timeout=120, python=str(script))
    assert set(ran.shared.errors) == {"0", "1"}
    assert "the program ended before it had written this case" in ran.shared.errors["0"]


def test_a_machine_without_ssh_is_told(
    job: MnnRunJob, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(NotRun, match="there is no ssh on this machine"):
        run(job)


def test_other_backends_are_not_run_over_ssh(
    job: MnnRunJob, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake = fake_host(monkeypatch, tmp_path / "host")
    with pytest.raises(NotRun, match="CPU only, not on opencl; use `mnnprep kit`"):
        run(job, settings=Settings(backend="opencl"))
    assert fake.calls == []


@pytest.mark.parametrize(
    ("text", "host"),
    [
        ("ssh://board", Host(name="board")),
        ("ssh://pi@board.local:2222", Host(name="board.local", user="pi", port=2222)),
        ("ssh://[fe80::1]:22", Host(name="[fe80::1]", port=22)),
        ("ssh://192.0.2.7", Host(name="192.0.2.7")),
    ],
)
def test_a_host_is_read(text: str, host: Host) -> None:
    assert host_of(text) == host


@pytest.mark.parametrize(
    "text",
    [
        "board",
        "ssh://",
        "ssh://-oProxyCommand=x",
        "ssh://a b",
        "ssh://pi@-board",
        "ssh://-l@board",
        "ssh://board:0",
        "ssh://board:70000",
        "ssh://board/path",
        "ssh://board\n",
        "ssh://board:22:x",
        "ssh://$(x)",
        "http://board",
    ],
)
def test_what_is_no_host_is_a_wrong_call(text: str) -> None:
    with pytest.raises(UsageError, match="this is not a host to reach by ssh"):
        host_of(text)


@pytest.mark.parametrize("text", ["ssh://board:70000", "ssh://-l@board", "ssh://board/path"])
def test_a_target_is_no_other_host(text: str) -> None:
    with pytest.raises(UsageError, match="this is not a host to reach by ssh"):
        Target.parse(text)
