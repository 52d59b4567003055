"""A limit, a full disk, a process killed from outside: the check was not run, and nothing is said against the
model.
"""

from __future__ import annotations

import errno
import signal
from collections.abc import Callable
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import pytest

from mnnprep.core import faults
from mnnprep.errors import InternalError, RefusedError, SystemFault
from mnnprep.evidence.check import Check, Status
from mnnprep.evidence.verdict import PREPARE, Verdict, verdict
from mnnprep.isolate.host import StepFailed
from mnnprep.mnn.convert import Converted, ConvertJob, Fault, Mishap, convert
from mnnprep.pipeline import verify as verifying
from mnnprep.pipeline.attempt import Judge
from mnnprep.pipeline.making import Maker
from mnnprep.pipeline.mnn_side import MnnSide
from mnnprep.pipeline.prepare import refusal

UNABLE = {
    "time": StepFailed("time", "took longer than 3 s"),
    "memory": StepFailed("memory", "used more than 3 MiB"),
    "told": StepFailed("error", "the disk is full", error=SystemFault("the disk is full")),
    "killed": StepFailed("crash", "crashed with SIGKILL", signal=signal.SIGKILL),
    "too large a file": StepFailed("crash", "crashed with SIGXFSZ", signal=signal.SIGXFSZ),
}
AT_FAULT = {
    "crashed": StepFailed("crash", "crashed with SIGSEGV", signal=signal.SIGSEGV),
    "ended": StepFailed("crash", "ended with exit status 1"),
    "said so": StepFailed("error", "no", error=RefusedError("no")),
    "ours": StepFailed("error", "no", error=InternalError("no")),
    "lied": StepFailed("reply", "ended without a reply"),
}
EACH = [(name, failure, Status.NOT_RUN) for name, failure in UNABLE.items()] + [
    (n, f, Status.FAILED) for n, f in AT_FAULT.items()
]
each = pytest.mark.parametrize(("failure", "status"), [pytest.param(f, s, id=n) for n, f, s in EACH])


class Bag:
    """An object of whatever is asked of it."""

    def __init__(self, **fields: Any) -> None:
        self.__dict__ |= fields


def gone(failure: StepFailed) -> Future[Any]:
    future: Future[Any] = Future()
    future.set_exception(failure)
    return future


def workers(failure: StepFailed, tmp_path: Path) -> Any:
    def run(*_: Any, **__: Any) -> Any:
        raise failure

    return Bag(
        submit=lambda *_, **__: gone(failure), run=run, directory=lambda _: tmp_path, limits=Bag(timeout=1.0)
    )


def tried(**fields: Any) -> Any:
    return Bag(
        checks=[],
        stumble=None,
        input_names={},
        output_names={},
        layouts={},
        mnn_tolerance=None,
        hints={},
        mnn=Bag(path=""),
        repairs=[],
        **fields,
    )


def make(kind: type, **fields: Any) -> Any:
    made = object.__new__(kind)
    made.__dict__ |= fields
    return made


def stages(failure: StepFailed, tmp_path: Path) -> dict[str, Callable[[], Check]]:
    """Each stage of an attempt and of a verification, its step ending as *failure*."""
    there = workers(failure, tmp_path)
    survey = Bag(cases=[], signature=Bag(dims=[], inputs=[], outputs=[]), checks=[])
    side = make(MnnSide, workers=there, survey=survey, precision=Bag(reduced=""), _learn=lambda _: False)
    judge = make(Judge, workers=there, survey=survey)
    maker = make(Maker, workers=there)
    manifest: Any = Bag(
        artifact=Bag(format="onnx", files=[Bag(path="x")]),
        cases=[Bag(path="c", origin="", dims={}, sha256="", size=0)],
        signature=Bag(inputs=[], outputs=[]),
        mnn=Bag(path="x"),
        runtime=Bag(hints={}),
    )

    def added(call: Callable[[Any], Any]) -> Callable[[], Check]:
        def run() -> Check:
            attempt = tried()
            call(attempt)
            (check,) = attempt.checks
            return check  # type: ignore[no-any-return]

        return run

    return {
        "convert": added(lambda a: side._conversion(a, gone(failure))),
        "run in MNN": added(lambda a: side._run_mnn(a, "")),
        "session": lambda: side.session(tried()),
        "run": lambda: judge._artifact_checks(tried(), gone(failure), "onnxruntime")[1][0],
        "repairs": lambda: judge._repairs_check(tried(), gone(failure), gone(failure)),
        "rules": added(lambda a: maker._apply(a, Bag(files=[Bag(path="")]), [])),
        "verify the artifact": lambda: verifying._artifact(there, tmp_path, manifest, True, lambda _: None)[
            0
        ],
        "verify in MNN": lambda: verifying._mnn(there, tmp_path, manifest, True, lambda _: None)[0],
    }


@each
def test_a_check_whose_step_could_not_be_made_is_not_run(
    failure: StepFailed, status: Status, tmp_path: Path
) -> None:
    found = {name: stage().status for name, stage in stages(failure, tmp_path).items()}
    expected = dict.fromkeys(found, status)
    if isinstance(
        failure.error, RefusedError
    ):  # an artifact that may not be run, as one made with --trust, says nothing of its numbers
        expected["verify the artifact"] = Status.NOT_RUN
    assert found == expected
    check = stages(failure, tmp_path)["run in MNN"]()
    assert (verdict([check], PREPARE) is Verdict.DIFFERS) is (status is Status.FAILED)


@pytest.mark.parametrize("failure", UNABLE.values(), ids=list(UNABLE))
def test_a_reference_that_could_not_be_run_is_refused_and_no_defect(failure: StepFailed) -> None:
    assert isinstance(refusal(failure), RefusedError)


def program(path: Path, text: str) -> str:
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)
    return str(path)


def converted(tmp_path: Path, converter: str, timeout: float = 20.0) -> Converted:
    (tmp_path / "out").mkdir(exist_ok=True)
    job = ConvertJob(
        model="m.onnx",
        frontend="ONNX",
        uuid_seed="0" * 64,
        directory=str(tmp_path / "out"),
        converter=converter,
        timeout=timeout,
    )
    return convert(job)


def test_a_converter_that_takes_too_long_says_nothing_of_the_model(tmp_path: Path) -> None:
    found = converted(tmp_path, program(tmp_path / "slow", "exec sleep 60"), timeout=0.2)
    assert (found.ok, found.unable) == (False, True)
    assert "took longer than 0.2 s" in found.reason
    assert not converted(tmp_path, program(tmp_path / "refusing", "exit 1")).unable


def test_a_converter_on_a_full_disk_says_nothing_of_the_model(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(faults, "no_room", lambda _: errno.ENOSPC)
    with pytest.raises(SystemFault) as caught:
        converted(tmp_path, program(tmp_path / "failing", "exit 1"))
    assert "No space left on device" in caught.value.seen
    monkeypatch.undo()
    with pytest.raises(SystemFault, match="the disk is full"):
        converted(tmp_path, program(tmp_path / "telling", "echo No space left on device; exit 1"))
    with pytest.raises(SystemFault, match="larger than the system allows"):
        converted(tmp_path, program(tmp_path / "ended", "kill -XFSZ $$"))


def test_what_the_converter_could_not_do_is_not_run(tmp_path: Path) -> None:
    side = make(MnnSide)
    attempt, done = tried(), Future[Any]()
    done.set_result(Bag(value=Converted(ok=False, mishap=Mishap(Fault.LATE, "3"), unable=True)))
    assert side._conversion(attempt, done) is None
    assert [(c.check, c.status, c.reason) for c in attempt.checks] == [
        ("mnn_convert", Status.NOT_RUN, "the converter took longer than 3 s")
    ]
