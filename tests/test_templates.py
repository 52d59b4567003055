"""A worker that a template has forked is one of its own: nothing of a run is left in the next, and its end is
seen as that of any other.
"""

from __future__ import annotations

import os
import signal
from pathlib import Path

import psutil
import pytest

from mnnprep.workers import launch
from mnnprep.workers.host import Host
from mnnprep.workers.step import Worker
from support import templates

WORKER = Worker("template's test", ("json",))


@pytest.fixture
def started() -> templates.Forked:
    process = launch.launch(WORKER)
    assert isinstance(process, templates.Forked)
    return process


def test_a_worker_is_a_process_of_its_own_that_ends_with_its_channel(started: templates.Forked) -> None:
    other = launch.launch(WORKER)
    pids = {started.pid, other.pid}
    assert len(pids) == 2
    parents = {psutil.Process(pid).ppid() for pid in pids}
    assert len(parents) == 1
    assert parents != {os.getpid()}
    for process in (started, other):
        assert process.poll() is None
        process.stdin.close()  # type: ignore[union-attr]
        assert process.wait(60) == 0


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 0), (signal.SIGKILL, -signal.SIGKILL)])
def test_its_end_by_a_signal_is_seen(started: templates.Forked, number: int, code: int) -> None:
    assert started.stdout.readline()  # it serves
    (worker,) = psutil.Process(started.pid).children()
    {signal.SIGTERM: started.terminate, signal.SIGKILL: started.kill}[signal.Signals(number)]()
    assert started.wait(60) == code
    worker.wait(60)
    assert not psutil.pid_exists(worker.pid)


def test_a_crash_of_the_worker_is_the_guardians(started: templates.Forked) -> None:
    assert started.stdout.readline()
    (worker,) = psutil.Process(started.pid).children()
    worker.send_signal(signal.SIGSEGV)
    assert started.wait(60) == -signal.SIGSEGV


def test_a_changed_environment_has_workers_that_are_started_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, started: templates.Forked
) -> None:
    started.kill()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    with Host(WORKER, scratch=tmp_path) as host:
        assert not isinstance(host._process, templates.Forked)
        host.ready.result(60)


def test_the_end_of_a_template_is_the_end_of_its_workers() -> None:
    template = templates.Template(WORKER, launch._variables(WORKER))
    worker = template.fork()
    assert worker.stdout.readline()
    template.close()
    assert worker.wait(60) == templates.GONE
    assert not worker.stdout.read()  # the worker, which held the other end, is gone, too
