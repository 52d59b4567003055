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

from mnnprep.attempt import verifier
from mnnprep.attempt.builder import ArtifactBuilder
from mnnprep.attempt.mnn_verifier import MnnVerifier
from mnnprep.attempt.results import NotMade
from mnnprep.attempt.verifier import Verifier
from mnnprep.commands import verify as verifying
from mnnprep.commands.prepare import refusal
from mnnprep.errors import InternalError, RefusedError, SystemFault
from mnnprep.evidence.check import Check, Status
from mnnprep.evidence.verdict import PREPARE, Verdict, verdict
from mnnprep.mnn.convert import Converted, ConvertJob, Fault, Mishap, convert
from mnnprep.safety import faults
from mnnprep.workers.failure import StepFailed

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


def ran() -> Future[Any]:
    future: Future[Any] = Future()
    future.set_result(Bag(value=None))
    return future


def workers(failure: StepFailed, tmp_path: Path) -> Any:
    def run(*_: Any, **__: Any) -> Any:
        raise failure

    return Bag(
        submit=lambda *_, **__: gone(failure), run=run, directory=lambda _: tmp_path, limits=Bag(timeout=1.0)
    )


def artifact() -> Any:
    """A made artifact, and at once its conversion."""
    kind = Bag(runtime="onnxruntime", frontend="ONNX", locate=None, silent=False)
    return Bag(format=kind, model="", exported=Bag(files=[]), repairs=())


def conversion() -> Any:
    return Bag(check=None, model=Bag(path=""), mismatch="", input_names={}, output_names={}, layouts={})


def make(kind: type, **fields: Any) -> Any:
    made = object.__new__(kind)
    made.__dict__ |= fields
    return made


def stages(failure: StepFailed, tmp_path: Path) -> dict[str, Callable[[], Check]]:
    """Each stage of an attempt and of a verification, its step ending as *failure*."""
    there = workers(failure, tmp_path)
    survey = Bag(cases=[], signature=Bag(dims=[], inputs=[], outputs=[]), checks=[])
    builder = make(ArtifactBuilder, workers=there, tell=lambda _: None, mnnconvert="", precision=None)
    side = make(
        MnnVerifier,
        _workers=there,
        _survey=survey,
        _builder=builder,
        _precision=Bag(reduced=""),
        _learn=lambda _: False,
    )
    judge = make(Verifier, _workers=there, _survey=survey)
    exported: Any = Bag(format="onnx", files=[Bag(path="")], checks=[])
    manifest: Any = Bag(
        artifact=Bag(format="onnx", files=[Bag(path="x")]),
        cases=[Bag(path="c", origin="", dims={}, sha256="", size=0)],
        signature=Bag(inputs=[], outputs=[]),
        mnn=Bag(path="x"),
        runtime=Bag(hints={}),
    )

    def run_in_mnn() -> Check:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(side, "_conversion", lambda *_: conversion())
            made = Bag(artifact=artifact(), converting=None)
            return side.verify(made, None, None).checks[-1]  # type: ignore[no-any-return]

    def rules() -> Check:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("mnnprep.attempt.builder.applicable", lambda rules, _: rules)
            patch.setattr("mnnprep.attempt.builder.operators_in", lambda _: [])
            made = builder._made(None, exported, ["a rule"], ())
        assert isinstance(made, NotMade)
        return made.checks[-1]

    return {
        "convert": lambda: side._conversion(artifact(), gone(failure)).check,
        "run in MNN": run_in_mnn,
        "session": lambda: side.session(Bag(ran=Bag(hints={}), conversion=conversion()), None),
        "run": lambda: judge._artifact_checks(Bag(artifact=artifact()), gone(failure), None)[2][0],
        "repairs": lambda: verifier._repairs_check((), ran(), gone(failure), None),  # type: ignore[arg-type]
        "rules": rules,
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
    before = verifier._repairs_check((), gone(failure), gone(failure), None)  # type: ignore[arg-type]
    assert (before.status, before.required) == (Status.NOT_RUN, False)  # that is no fault of the repair
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
    side, done = make(MnnVerifier), Future[Any]()
    done.set_result(Bag(value=Converted(ok=False, mishap=Mishap(Fault.LATE, "3"), unable=True)))
    check = side._conversion(artifact(), done).check
    assert (check.check, check.status, check.reason) == (
        "mnn_convert",
        Status.NOT_RUN,
        "the converter took longer than 3 s",
    )
