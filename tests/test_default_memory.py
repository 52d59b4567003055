"""Without --memory a step may use three quarters of what is free; that alone streams no weights."""

from __future__ import annotations

from concurrent.futures import Future
from types import SimpleNamespace
from typing import Any

import psutil
import pytest

from mnnprep.commands import streamed
from mnnprep.model.messages import Source
from mnnprep.model.request import Limits, Request
from mnnprep.workers.pool import Workers
from mnnprep.workers.step import Step, Worker

STEP = Step("module", "step", Limits, Limits, Worker("test"))
GB = 1 << 30


@pytest.fixture(autouse=True)
def eight_free(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(psutil, "virtual_memory", lambda: SimpleNamespace(available=8 * GB))


@pytest.mark.parametrize(("given", "allowed"), [(0, 6 * GB), (GB, GB), (64 * GB, 64 * GB)])
def test_a_step_gets_what_was_given_else_three_quarters_of_what_is_free(
    monkeypatch: pytest.MonkeyPatch, given: int, allowed: int
) -> None:
    asked: list[int] = []

    class Recorder:
        def submit(self, *_: Any, memory: int, **__: Any) -> Any:
            asked.append(memory)
            return Future()

        def close(self) -> None:
            pass

        shutdown = close

    with Workers(Limits(memory=given)) as workers:
        monkeypatch.setattr(workers, "warm", lambda _: Recorder())
        workers.submit(STEP, Limits())
        workers.limits = Limits(memory=GB // 2)  # as the proof of streamed weights has its own
        workers.submit(STEP, Limits())
    assert asked == [allowed, GB // 2]


def test_the_default_streams_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(streamed, "checkpoint_size", lambda _: 100 * GB)
    source = Source(kind="torch-factory", path="net.py:build", weights="weights")
    assert not streamed.why_streamed(Request(source="net.py:build", weights="weights"), source)
    assert "--memory is" in streamed.why_streamed(
        Request(source="net.py:build", weights="weights", limits=Limits(memory=8 * GB)), source
    )
