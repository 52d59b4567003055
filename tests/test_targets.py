"""Targets: how one is written, and what is run where; each environment that is broken says so in one line."""

from __future__ import annotations

import contextlib
from pathlib import Path

import MNN
import pytest
from hypothesis import given
from hypothesis import strategies as st

import mnnprep
from mnnprep.bundle.manifest import read_manifest
from mnnprep.errors import UsageError
from mnnprep.evidence.check import Check, Status
from mnnprep.evidence.verdict import Verdict
from mnnprep.model.target import APIS, MODES, Target, host_machine, parse_targets
from mnnprep.targets.environment import Unavailable, expand, worker_of
from mnnprep.targets.places import RECORD, engine_of, environments, root_of
from support.command import call
from support.emulators import OTHER, fake_emulator, fake_engine

TARGETS = st.builds(
    Target,
    arch=st.sampled_from(["arm64", "x86_64", "host", "ssh://pi@board", "ssh://board:2222"]),
    precision=st.sampled_from(MODES),
    memory=st.sampled_from(MODES),
    threads=st.integers(1, 64),
    api=st.sampled_from(APIS),
    engine=st.sampled_from(["", "3.2.0", "every"]),
)


@given(TARGETS)
def test_a_target_is_what_its_text_says(target: Target) -> None:
    assert Target.parse(str(target)) == target


@given(st.text(max_size=30))
def test_no_text_is_an_error_of_another_kind(text: str) -> None:
    with contextlib.suppress(UsageError):
        Target.parse(text)


@pytest.mark.parametrize(
    ("text", "written"),
    [
        ("arm64", "arm64:high"),
        ("AArch64:low", "arm64:low"),
        ("arm64:low,cpu=cortex-a53,engine=3.2.0", "arm64:low,cpu=cortex-a53,engine=3.2.0"),
        ("amd64,precision=normal, threads=4", "x86_64:normal,threads=4"),
        ("host:low", "host:low"),
        ("ssh://board,precision=low", "ssh://board,precision=low"),
    ],
)
def test_the_forms_of_a_target(text: str, written: str) -> None:
    assert str(Target.parse(text)) == written


@pytest.mark.parametrize(
    "text",
    [
        "",
        "risc-v",
        "arm64:half",
        "arm64,cpu",
        "arm64,cpu=",
        "arm64,cpu=a b",
        "arm64,colour=red",
        "arm64:low,precision=high",
        "arm64,threads=0",
        "arm64,threads=many",
        "arm64,engine=new",
        "arm64,engine=../../x",
        "x86_64,cpu=haswell",
        "ssh://-oProxyCommand=x",
        "arm64,threads=1,threads=2",
    ],
)
def test_what_is_no_target(text: str) -> None:
    with pytest.raises(UsageError) as caught:
        Target.parse(text)
    assert caught.value.seen or text == ""
    assert caught.value.next


def test_sets_stand_for_their_targets_once() -> None:
    found = parse_targets(["phone", "arm64:low", "engines"])
    assert [str(target) for target in found] == [
        "arm64:high",
        "arm64:low",
        "arm64:low,cpu=cortex-a53",
        "host:high,engine=every",
    ]


def checks(evidence: list[Check]) -> dict[str, tuple[Status, str]]:
    return {
        c.check.partition(":")[2]: (c.status, c.reason) for c in evidence if c.check.startswith("target:")
    }


def test_another_engine_and_this_machine_at_low(
    bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    fake_engine(host_machine(), "9.9.9")
    found = mnnprep.verify(bundle, targets=["host:low", "host:high,engine=9.9.9", "engines"])
    assert found.verdict is Verdict.PROVEN
    assert list(checks(found.evidence)) == [
        "host:low",
        "host:high,engine=9.9.9",
        f"host:high,engine={MNN.version()}",
    ]
    assert [record.engine for record in found.targets] == [MNN.version()] * 3
    assert all(record.cases == list(range(len(read_manifest(bundle).cases))) for record in found.targets)


def test_the_packages_of_an_engine_are_those_that_are_imported(
    bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    package = fake_engine(host_machine(), "9.9.9") / "site" / "MNN"
    package.mkdir()
    (package / "__init__.py").write_text("def version(): return '9.9.9'\n")
    (package / "nn.py").write_text("def create_runtime_manager(_): raise RuntimeError('another MNN')\n")
    (package / "expr.py").write_text("NCHW = NHWC = 0\n")
    found = mnnprep.verify(bundle, targets="host,engine=9.9.9")
    ((status, reason),) = checks(found.evidence).values()
    assert (found.verdict, status) == (Verdict.DIFFERS, Status.FAILED)
    assert "another MNN" in reason


def test_an_emulated_target_is_run_on_the_cases_that_tell(
    bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake_emulator(monkeypatch, tmp_path)
    found = mnnprep.verify(bundle, targets=[OTHER])
    assert (found.verdict, checks(found.evidence)) == (
        Verdict.PROVEN,
        {f"{OTHER}:high": (Status.PASSED, "")},
    )
    (record,) = found.targets
    assert record.engine == MNN.version()
    assert 0 < len(record.cases) <= len(read_manifest(bundle).cases)


@pytest.mark.parametrize(
    ("fault", "told"),
    [
        ("os.kill(os.getpid(), 11)", "crash"),
        ("sys.exit(3)", "ended before it answered"),
        ("import time; time.sleep(600)", "longer than"),
        ("open('/etc/hostname.mnnprep', 'w')", "ended before it answered"),
        ("import socket; socket.socket()", "ended before it answered"),
    ],
)
def test_an_emulator_that_fails_is_not_run(
    bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fault: str, told: str
) -> None:
    fake_emulator(monkeypatch, tmp_path, fault)
    found = mnnprep.verify(bundle, targets=[OTHER], timeout=8)
    ((status, reason),) = checks(found.evidence).values()
    assert (found.verdict, status) == (Verdict.UNPROVEN, Status.NOT_RUN)
    assert told in reason
    assert "\n" not in reason


def test_what_is_missing_is_named_with_the_command_that_brings_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    target = Target.parse(OTHER)
    fake_emulator(monkeypatch, tmp_path)
    (engine_of(OTHER, MNN.version()) / RECORD).unlink()
    with pytest.raises(Unavailable, match=f"mnnprep target add {OTHER},engine="):
        worker_of(target)
    (root_of(OTHER) / RECORD).unlink()
    with pytest.raises(Unavailable, match=f"mnnprep target add {OTHER}$"):
        worker_of(target)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(Unavailable, match="apt-get install qemu-user-static"):
        worker_of(target)
    with pytest.raises(UsageError, match="no other engine"):
        expand(parse_targets(["engines"]))
    assert environments() == []


def test_a_bundle_is_not_proven_on_a_target_that_is_not_here(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from evaluation.nets.mnn_models import matmul

    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    model = matmul(tmp_path / "m.onnx")
    result = call(
        "prepare", model, "-o", tmp_path / "out", "--target", "host,engine=0.0.1", "--target", "host:low"
    )
    manifest = read_manifest(tmp_path / "out")
    assert (result.code, manifest.verdict) == (1, Verdict.UNPROVEN)
    assert "mnnprep target add" in result.out
    assert [(r.target, bool(r.engine)) for r in manifest.targets] == [
        ("host:high,engine=0.0.1", False),
        ("host:low", True),
    ]
    assert len(manifest.artifact.attempts) == 1  # no other method mends a target
    again = mnnprep.verify(tmp_path / "out")
    assert again.verdict is Verdict.UNPROVEN
