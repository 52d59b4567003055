"""The process boundary holds, whatever a step does; and a step succeeds only by exit code, reply and files
together.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

import mnnprep
from mnnprep.attempt.verifier import after
from mnnprep.errors import InternalError, RefusedError, UsageError
from mnnprep.formats.factory import likely_worker
from mnnprep.model.request import Limits
from mnnprep.workers import launch as launching
from mnnprep.workers.failure import StepFailed, internal
from mnnprep.workers.host import Host, InProcess
from mnnprep.workers.launch import WORKER_ENVIRONMENT, prestart
from mnnprep.workers.pool import Workers
from mnnprep.workers.server import job_type, resolve, run_step
from mnnprep.workers.step import Step, Worker
from support import boundary_steps
from support.boundary_steps import Answer, Job

pytestmark = pytest.mark.own_workers

MODULE = "mnnprep.boundary_steps"
ANY = Worker("test")
JSON, CSV, UUID, COLORSYS = (Worker("test", (name,)) for name in ("json", "csv", "uuid", "colorsys"))
LONG = 30.0  # seconds: no test should take as long
SHORT = 3.0  # seconds: enough for a loaded machine to start a step, too little for one that hangs
MIB = 1 << 20


@pytest.fixture(scope="module")
def package(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of mnnprep made of links, with the misbehaving steps in it; its directory."""
    root = tmp_path_factory.mktemp("package") / "mnnprep"
    root.mkdir()
    assert mnnprep.__file__ is not None
    for entry in Path(mnnprep.__file__).parent.iterdir():
        (root / entry.name).symlink_to(entry)
    shutil.copy(boundary_steps.__file__, root / "boundary_steps.py")
    (root / "slow_to_import.py").write_text(f"import time; time.sleep({SHORT})")
    return root


@pytest.fixture(scope="module")
def start(package: Path) -> Callable[..., Host]:
    """Start a host whose worker has those steps."""

    def make(*imports: str, scratch: Path) -> Host:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(launching, "PACKAGE", package)
            return Host(Worker("test", imports), scratch=scratch)

    return make


@pytest.fixture(scope="module")
def shared(start: Callable[..., Host], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Host]:
    with start(scratch=tmp_path_factory.getbasetemp()) as host:
        yield host


@pytest.fixture
def host(shared: Host) -> Iterator[Host]:
    """The shared worker, which must be as good after each test as before."""
    yield shared
    assert ask(shared, "echo", Job("still here")).text == "still here"


def boundary(name: str) -> Step[Job, Answer]:
    """The step *name* of `boundary_steps`."""
    return named(f"{MODULE}:{name}")


def named(name: str) -> Step[Job, Answer]:
    """The step of this full name."""
    module, _, function = name.partition(":")
    return Step(module, function, Job, Answer, ANY)


def ask(host: Host, step: str, job: Job | None = None, *, timeout: float = LONG, memory: int = 0) -> Answer:
    return host.run(boundary(step), job or Job(), timeout=timeout, memory=memory).value


def fails(
    host: Host, step: str, job: Job | None = None, *, timeout: float = LONG, memory: int = 0
) -> StepFailed:
    with pytest.raises(StepFailed) as caught:
        ask(host, step, job, timeout=timeout, memory=memory)
    return caught.value


def gone(pid: int) -> bool:
    """Whether the process ends within a few seconds."""
    for _ in range(500):
        try:
            if psutil.Process(pid).status() == psutil.STATUS_ZOMBIE:
                return True
        except psutil.NoSuchProcess:
            return True
        time.sleep(0.01)
    return False


def written(path: Path) -> int:
    """The pid in *path*, once it is there."""
    for _ in range(1000):
        with contextlib.suppress(OSError, ValueError):
            return int(path.read_text())
        time.sleep(0.01)
    raise AssertionError(f"{path} was not written")


def test_a_step_answers(host: Host) -> None:
    reply = host.run(boundary("echo"), Job("ü \x00 \n"), timeout=LONG)
    assert reply.value == Answer("ü \x00 \n")
    assert 0 < reply.seconds < LONG
    assert 5 * MIB < reply.peak < 2000 * MIB


def test_a_crash_is_told_by_its_signal_its_last_lines_and_what_it_was_doing(host: Host) -> None:
    failure = fails(host, "crash")
    assert failure.fate == "crash"
    assert failure.reason == "crashed with SIGSEGV while counting sheep"
    assert failure.log.rstrip().splitlines() == ["the line before", "the last line"]


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGABRT, signal.SIGFPE, signal.SIGBUS])
def test_every_signal_is_a_crash(host: Host, number: signal.Signals) -> None:
    failure = fails(host, "raise_signal", Job(number=number))
    assert (failure.fate, failure.reason) == ("crash", f"crashed with {number.name}")


@pytest.mark.parametrize("code", [0, 1, 3])
def test_leaving_by_exit_is_no_success(host: Host, code: int) -> None:
    failure = fails(host, "leave", Job(number=code))
    assert (failure.fate, failure.reason) == ("crash", "ended with exit status 1")


def test_exit_status_0_without_a_reply_is_no_success(host: Host) -> None:
    failure = fails(host, "no_reply")
    assert (failure.fate, failure.reason) == ("reply", "ended without a reply")


@pytest.mark.parametrize("step", ["half_a_reply", "another_type"])
def test_a_reply_that_can_not_be_read_is_no_success(host: Host, step: str) -> None:
    failure = fails(host, step)
    assert failure.fate == "reply"
    assert failure.reason.startswith("its reply could not be read: ")


def test_a_value_that_can_not_be_written_is_no_success(host: Host) -> None:
    assert fails(host, "can_not_be_written").fate in ("crash", "error")


def test_a_hang_ends_at_the_time_limit(host: Host) -> None:
    started = time.monotonic()
    failure = fails(host, "hang", timeout=SHORT)
    assert (failure.fate, failure.reason) == ("time", f"took longer than {SHORT:g} s while waiting for Godot")
    assert time.monotonic() - started < SHORT + 20


def test_memory_beyond_the_limit_ends_the_step(host: Host) -> None:
    limit = ask_peak(host) + 64 * MIB
    failure = fails(host, "eat_memory", memory=limit)
    assert failure.fate == "memory"
    assert failure.reason == f"used more than {limit / MIB:.0f} MiB while eating"
    assert ask(host, "take_memory", Job(number=16), memory=limit).text == str(16 * MIB)


def ask_peak(host: Host) -> int:
    return host.run(boundary("echo"), Job(), timeout=LONG).peak


def test_no_memory_to_be_had_is_a_refusal(host: Host) -> None:
    failure = fails(host, "out_of_memory")
    assert isinstance(failure.error, RefusedError)
    assert "memory" in failure.reason


def test_files_that_are_as_named_pass(host: Host) -> None:
    answer = ask(host, "write_file")
    assert Path(answer.files[0].path).read_bytes() == b"right"


@pytest.mark.parametrize(
    ("how", "why"),
    [
        ("missing", "does not exist"),
        ("short", "bytes are not those"),
        ("changed", "bytes are not those"),
        ("directory", "not exist"),
    ],
)
def test_a_lie_about_a_file_is_caught(host: Host, how: str, why: str) -> None:
    failure = fails(host, "lie", Job(how))
    assert failure.fate == "reply"
    assert why in failure.reason


def test_a_large_file_is_not_read_once_more(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its size is looked at; its hash when it goes into a bundle."""
    monkeypatch.setattr("mnnprep.workers.host.HASHED", 1)
    assert ask(host, "lie", Job("changed")).more["nested"]
    assert "bytes are not those" in fails(host, "lie", Job("short")).reason


def test_a_stale_file_is_caught(host: Host, tmp_path: Path) -> None:
    (tmp_path / "old").write_text("from an earlier run")
    assert fails(host, "stale", Job(str(tmp_path / "old"))).fate == "reply"


def test_errors_cross_whole(host: Host) -> None:
    failure = fails(host, "usage_error")
    assert failure.fate == "error"
    assert isinstance(failure.error, UsageError)
    assert (failure.error.what, failure.error.seen, failure.error.next) == (
        "what is wrong — ü",
        "this\nand that",
        "do otherwise",
    )
    assert failure.__cause__ is failure.error
    refused = fails(host, "refused_error").error
    assert isinstance(refused, RefusedError)
    assert refused.exit_code == 3


def test_a_defect_crosses_as_an_internal_error_with_its_traceback(host: Host) -> None:
    failure = fails(host, "defect")
    assert isinstance(failure.error, InternalError)
    assert failure.reason == "ZeroDivisionError: a defect of ours"
    assert "in defect" in failure.log
    report = internal(failure, "asking")
    assert (report.what, report.exit_code) == ("asking: ZeroDivisionError: a defect of ours", 70)


def test_what_a_step_prints_does_not_matter(host: Host) -> None:
    assert ask(host, "print_much").text == "done"


def test_a_step_that_removes_its_directory_does_not_stop_the_next(host: Host) -> None:
    assert fails(host, "remove_own_directory").fate == "reply"


@pytest.mark.parametrize(
    "step", ["os:getcwd", "subprocess:run", "mnnprepx.steps:run", "builtins:eval", "mnnprep:__version__"]
)
def test_a_step_outside_mnnprep_is_refused(host: Host, step: str) -> None:
    with pytest.raises(StepFailed) as caught:
        host.run(named(step), Job(), timeout=LONG)
    assert (caught.value.fate, caught.value.reason) == ("error", "a step outside mnnprep was asked for")
    with pytest.raises(InternalError):
        resolve(step)


@pytest.mark.parametrize("step", ["mnnprep.no_such_module:run", f"{MODULE}:no_such_step"])
def test_an_unknown_step_is_a_defect_of_ours(host: Host, step: str) -> None:
    with pytest.raises(StepFailed) as caught:
        host.run(named(step), Job(), timeout=LONG)
    assert isinstance(caught.value.error, InternalError)


@pytest.mark.parametrize(("number", "fate"), [(0, ""), (1, "crash"), (2, "time")])
def test_no_grandchild_outlives_its_step(host: Host, tmp_path: Path, number: int, fate: str) -> None:
    job = Job(str(tmp_path / "pid"), number)
    if fate:
        assert fails(host, "spawn", job, timeout=SHORT if fate == "time" else LONG).fate == fate
    else:
        assert ask(host, "spawn", job).text == "done"
    assert gone(written(tmp_path / "pid"))


def test_jobs_run_side_by_side_and_keep_their_own_fates(host: Host) -> None:
    started = time.monotonic()
    futures = [
        host.submit(boundary(step), Job(step), timeout=SHORT)
        for step in ("hang", "echo", "crash", "hang", "echo")
    ]
    assert futures[1].result().value.text == futures[4].result().value.text == "echo"
    assert [f.exception().fate for f in (futures[0], futures[2], futures[3])] == ["time", "crash", "time"]  # type: ignore[union-attr]
    assert time.monotonic() - started < 5


def test_a_step_leaves_nothing_but_its_files(start: Callable[..., Host], tmp_path: Path) -> None:
    with start(scratch=tmp_path) as host:
        ask(host, "echo")
        fails(host, "crash")
        kept = ask(host, "write_file").files[0].path
        ask(host, "echo")  # the cleaning follows the answer
    assert [p for p in tmp_path.rglob("*") if p.is_file()] == [Path(kept)]


def test_a_worker_sees_nothing_of_the_users(
    start: Callable[..., Host], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    here, scratch = tmp_path / "here", tmp_path / "scratch"
    here.mkdir()
    scratch.mkdir()
    (here / "module_of_the_user.py").write_text("")
    (here / "json.py").write_text("raise SystemExit('the wrong json')")
    (here / "sitecustomize.py").write_text("raise SystemExit('the wrong site')")
    monkeypatch.chdir(here)
    for name, value in {
        "PYTHONPATH": str(here),
        "PYTHONSTARTUP": "x",
        "PYTHONHASHSEED": "7",
        "OMP_NUM_THREADS": "9",
        "A_VARIABLE_OF_THE_USER": "kept",
    }.items():
        monkeypatch.setenv(name, value)
    with start(scratch=scratch) as host:
        answer = ask(host, "look")
    seen = answer.values
    assert Path(answer.text).parent == scratch
    assert {k: seen[k] for k in WORKER_ENVIRONMENT if k in seen} == {
        k: v
        for k, v in WORKER_ENVIRONMENT.items()
        if k.endswith("_THREADS") or k.startswith("PYTHON") or k == "CUDA_VISIBLE_DEVICES"
    }
    assert not {"PYTHONPATH", "PYTHONSTARTUP"} & seen.keys()
    assert seen["home"] == "kept"
    path = seen["path"].split("\n")
    assert "" not in path
    assert "." not in path
    assert str(here) not in path
    assert seen["user_module"] == "None"
    assert seen["stdin"] == "''"
    assert set(seen["files"].split("\n")) == {"job.json", "log.txt"}


@pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")
def test_a_step_ends_before_other_programs_when_no_memory_is_left(host: Host) -> None:
    assert ask(host, "look").values["killed_first"] == "1000"


@pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")
def test_a_step_does_not_hold_the_channel_to_the_parent(host: Host) -> None:
    assert ask(host, "look").values["protocol"] == "[]"


def test_noise_and_failure_while_preloading_do_not_matter(start: Callable[..., Host], tmp_path: Path) -> None:
    with start("this", "no_such_module_anywhere", scratch=tmp_path) as host:  # `import this` prints
        assert ask(host, "echo", Job("a")).text == "a"


def test_closing_ends_what_is_running_and_says_so(start: Callable[..., Host], tmp_path: Path) -> None:
    host = start(scratch=tmp_path)
    running = host.submit(boundary("hang"), Job(str(tmp_path / "pid")), timeout=LONG)
    child = written(tmp_path / "pid")
    spawned = host.submit(boundary("spawn"), Job(str(tmp_path / "grandchild"), 2), timeout=LONG)
    grandchild = written(tmp_path / "grandchild")
    started = time.monotonic()
    host.close()
    assert time.monotonic() - started < 4
    assert gone(child)
    assert gone(grandchild)
    for future in (running, spawned):
        with pytest.raises(StepFailed) as caught:
            future.result(timeout=1)
        assert caught.value.fate == "crash"
    assert fails(host, "echo").reason == f"the worker for {MODULE}:echo ended before it answered"
    host.close()  # again: harmless


def test_an_interrupt_in_the_middle_ends_everything(start: Callable[..., Host], tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt), start(scratch=tmp_path) as host:
        host.submit(boundary("hang"), Job(str(tmp_path / "pid")), timeout=LONG)
        child = written(tmp_path / "pid")
        raise KeyboardInterrupt
    assert gone(child)


def test_a_worker_that_is_killed_fails_its_jobs_and_its_children_follow(
    start: Callable[..., Host], tmp_path: Path
) -> None:
    with start(scratch=tmp_path) as host:
        future = host.submit(boundary("hang"), Job(str(tmp_path / "pid")), timeout=LONG)
        child = written(tmp_path / "pid")
        worker = psutil.Process(child).ppid()
        assert worker != os.getpid()
        os.kill(worker, signal.SIGKILL)
        with pytest.raises(StepFailed, match="crashed with SIGKILL while waiting for Godot"):
            future.result(timeout=5)
        assert gone(child)
        assert fails(host, "echo").fate == "crash"


def in_the_worker(
    host: Host, step: str, job: Job | None = None, *, timeout: float = LONG, memory: int = 0
) -> Answer:
    return (
        host.submit(boundary(step), job or Job(), timeout=timeout, memory=memory, in_worker=True)
        .result(timeout=LONG)
        .value
    )


def test_what_a_step_loads_in_the_worker_itself_is_there_for_the_next(
    start: Callable[..., Host], tmp_path: Path
) -> None:
    with start(scratch=tmp_path) as host:
        ask(host, "remember", Job("lost with its process"))
        assert ask(host, "recall").text == ""
        in_the_worker(host, "remember", Job("kept"))
        assert ask(host, "recall").text == "kept"
        with pytest.raises(StepFailed) as caught:
            in_the_worker(host, "usage_error")
        assert isinstance(caught.value.error, UsageError)
        assert in_the_worker(host, "print_a_little", Job("done")).text == "done"
        assert ask(host, "recall").text == "kept"


@pytest.mark.parametrize(
    ("step", "fate", "reason"),
    [
        ("crash", "crash", "crashed with SIGSEGV while counting sheep"),
        ("hang", "time", f"took longer than {SHORT:g} s while waiting for Godot"),
        ("eat_memory", "memory", "used more than 200 MiB while eating"),
        ("no_reply", "crash", f"the worker for {MODULE}:no_reply ended before it answered"),
    ],
)
def test_a_step_that_takes_the_worker_with_it_is_told_alike(
    start: Callable[..., Host], tmp_path: Path, step: str, fate: str, reason: str
) -> None:
    with start(scratch=tmp_path) as host:
        with pytest.raises(StepFailed) as caught:
            in_the_worker(
                host,
                step,
                timeout=SHORT if fate == "time" else LONG,
                memory=200 * MIB if fate == "memory" else 0,
            )
        assert (caught.value.fate, caught.value.reason) == (fate, reason)
        assert fails(host, "echo").fate == "crash"


def test_an_answer_that_comes_after_the_limit_is_over_it(
    start: Callable[..., Host], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The worker may have answered just before it was ended: that answer must not be taken for a step within
    its limits.
    """
    with start(scratch=tmp_path) as host:
        host.ready.result(timeout=LONG)
        monkeypatch.setattr(host._process, "terminate", lambda: None)
        with pytest.raises(StepFailed) as caught:
            in_the_worker(host, "nap", Job(number=1), timeout=0.2)
        assert (caught.value.fate, caught.value.reason) == ("time", "took longer than 0.2 s")


def test_a_worker_that_still_imports_costs_a_step_nothing_of_its_limit(
    start: Callable[..., Host], tmp_path: Path
) -> None:
    with start("mnnprep.slow_to_import", scratch=tmp_path) as host:
        assert in_the_worker(host, "echo", Job("a"), timeout=SHORT / 2).text == "a"


PARENT = """
import sys, pathlib, threading
from mnnprep.workers import launch
launch.PACKAGE = pathlib.Path(sys.argv[1])
from support.boundary_steps import Answer, Job
from mnnprep.workers.host import Host
from mnnprep.workers.launch import prestart
from mnnprep.workers.step import Step, Worker
scratch, step, in_worker = pathlib.Path(sys.argv[2]), sys.argv[3], sys.argv[4] == "in_worker"
if step == "prestart":
    prestart(Worker("test", ("mnnprep.tells_and_sleeps",)))
    threading.Event().wait()
hosts = []
thread = threading.Thread(target=lambda: hosts.append(Host(Worker("test"), scratch=scratch)))
thread.start()  # what ends with the thread that started a process must not be the process
thread.join()
job = Job(str(scratch / "pid"), 2)
step = Step("mnnprep.boundary_steps", step, Job, Answer, Worker("test"))
hosts[0].submit(step, job, timeout=60, in_worker=in_worker).result()
"""
MARK = "STARTED_BY_THIS_TEST"


def marked(mark: str) -> list[psutil.Process]:
    """The processes alive with *mark* in their environment."""
    found = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            if process.environ().get(MARK) == mark and process.status() != psutil.STATUS_ZOMBIE:
                found.append(process)
    return found


@pytest.mark.skipif(sys.platform != "linux", reason="reads the environment of processes")
@pytest.mark.parametrize(
    ("step", "process"),
    [
        ("spawn", "child"),
        ("spawn", "in_worker"),
        ("daemon", "child"),
        ("daemon", "in_worker"),
        ("hold_the_lock", "in_worker"),
        ("prestart", ""),
    ],
)
def test_when_the_parent_is_killed_nothing_is_left(
    package: Path, tmp_path: Path, step: str, process: str
) -> None:
    """Neither what a step started, also in a session of its own, nor a worker deaf in native code, nor one
    that still imports.
    """
    assert mnnprep.__file__ is not None
    roots = os.pathsep.join((str(Path(mnnprep.__file__).parent.parent), str(Path(__file__).parent)))
    told = tmp_path / "pid"
    (package / "tells_and_sleeps.py").write_text(
        "import os, pathlib,"
        " time\npathlib.Path(os.environ['TOLD']).write_text(str(os.getpid()))\ntime.sleep(60)\n"
    )
    parent = subprocess.Popen(
        [sys.executable, "-c", PARENT, str(package), str(tmp_path), step, process],
        env={**os.environ, "PYTHONPATH": roots, MARK: str(tmp_path), "TOLD": str(told)},
    )
    try:
        pid = written(told)
        family = marked(str(tmp_path))
        assert {parent.pid, pid} <= {p.pid for p in family}
        assert len(family) >= 3
    finally:
        parent.kill()
        parent.wait()
    assert all(gone(p.pid) for p in family)
    assert marked(str(tmp_path)) == []


def test_a_worker_that_is_killed_leaves_nothing_that_it_started(
    start: Callable[..., Host], tmp_path: Path
) -> None:
    with start(scratch=tmp_path) as host:
        host.submit(boundary("daemon"), Job(str(tmp_path / "pid"), 2), timeout=LONG, in_worker=True)
        daemon = written(tmp_path / "pid")
        os.kill(host._worker, signal.SIGKILL)
        assert gone(daemon)


def test_a_step_names_its_job_by_its_annotation() -> None:
    assert job_type(boundary_steps.echo) is Job
    assert b"a step outside mnnprep" in run_step("os:getcwd", b"{}")


def test_in_process_steps_answer_and_fail_alike(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "mnnprep.boundary_steps", boundary_steps)
    here = InProcess(scratch=tmp_path)
    assert here.submit(boundary("echo"), Job("a"), timeout=1).result().value == Answer("a")
    for step, kind in (("usage_error", UsageError), ("defect", InternalError)):
        failure = here.submit(boundary(step), Job(), timeout=1).exception()
        assert isinstance(failure, StepFailed)
        assert (failure.fate, type(failure.error)) == ("error", kind)
    refused = here.submit(named("os:getcwd"), Job(), timeout=1).exception()
    assert isinstance(refused, StepFailed)
    assert refused.reason == "a step outside mnnprep was asked for"
    here.close()


def test_a_worker_started_early_is_the_one_that_serves(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    prestart(JSON)
    prestart(JSON)  # it is there already
    pid = launching._prestarted[JSON][1].pid
    with Host(JSON, scratch=tmp_path) as host:
        assert host._process.pid == pid
    prestart(JSON)
    pid = launching._prestarted[JSON][1].pid
    monkeypatch.setenv("A_VARIABLE_OF_THE_USER", "changed since")
    with Host(JSON, scratch=tmp_path) as host:
        assert host._process.pid != pid
    launching._end()
    assert not psutil.pid_exists(pid)


def test_workers_start_one_after_the_other(monkeypatch: pytest.MonkeyPatch) -> None:
    with Workers(Limits()) as workers:
        workers.warm_in_turn([JSON, CSV, UUID])
        first = workers._hosts[JSON]
        assert isinstance(first, Host)
        first.ready.result(timeout=LONG)
        late = workers.warm(UUID)  # asked for before its turn: at once
        deadline = time.monotonic() + LONG
        while CSV not in workers._hosts and time.monotonic() < deadline:
            time.sleep(0.01)
        for worker in (CSV, UUID):
            host = workers._hosts[worker]
            assert isinstance(host, Host)
            host.ready.result(timeout=LONG)
        assert workers._hosts[UUID] is late
    workers.warm_in_turn([COLORSYS])  # over: none is started
    assert COLORSYS not in workers._hosts


def test_a_worker_that_is_gone_is_ready_for_nothing(tmp_path: Path) -> None:
    host = Host(JSON, scratch=tmp_path)
    host._process.kill()
    host.ready.result(timeout=LONG)
    host.close()


def test_who_is_dismissed_ends_unless_something_runs(start: Callable[..., Host], tmp_path: Path) -> None:
    with start(scratch=tmp_path) as host:
        running = host.submit(boundary("echo"), Job("a"), timeout=LONG)
        host.shutdown()
        assert running.result(timeout=LONG).value == Answer("a")
        host.shutdown()
        assert host._process.wait(timeout=LONG) == 0
        host.shutdown()


def test_a_worker_started_ahead_for_nothing_ends_with_the_process() -> None:
    code = (
        "from mnnprep.workers import launch, step; worker = step.Worker('test', ('json',));"
        " launch.prestart(worker); print(launch._prestarted[worker][1].pid)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=LONG
    )
    assert not psutil.pid_exists(int(done.stdout))


@pytest.mark.parametrize(
    ("name", "text", "framework"),
    [
        ("net.py:build", "import torch", "torch"),
        ("net.py:build", "import keras", "tensorflow"),
        ("net.onnx", "", "onnxruntime"),
        ("net.txt", "", None),
    ],
)
def test_what_a_source_will_import(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, text: str, framework: str | None
) -> None:
    monkeypatch.chdir(tmp_path)
    assert likely_worker(name) is None, "it is not there yet"
    (tmp_path / name.partition(":")[0]).write_text(text)
    worker = likely_worker(name)
    assert framework in worker.imports if worker else framework is None


def test_what_waits_for_a_step_may_submit_another_when_the_worker_is_gone(tmp_path: Path) -> None:
    host = Host(ANY, scratch=tmp_path)
    job, doing = Job("x"), named("mnnprep.workers.server:doing")
    first = host.submit(doing, job, timeout=LONG)
    chained = after(first, lambda: host.submit(doing, job, timeout=LONG))
    host._process.kill()
    with pytest.raises(StepFailed):
        chained.result(timeout=LONG)
    host.close()
