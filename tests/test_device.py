"""Outputs that came back from a device are held to the rules of `verify`; what is no answer of a device is
refused.
"""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable
from pathlib import Path

import msgspec
import numpy as np
import pytest

import mnnprep
from mnnprep.bundle.manifest import read_manifest
from mnnprep.commands.auditing.device import (
    DeviceOutputs,
    device_check,
    device_outputs,
)
from mnnprep.commands.auditing.yardstick import ruled
from mnnprep.commands.verify import mnn_job
from mnnprep.comparison.half_precision import DEFAULT_LOW_SQNR
from mnnprep.errors import RefusedError, UsageError
from mnnprep.evidence.check import Check, Status
from mnnprep.mnn.settings import COARSE, FLOAT16, FLOAT32
from mnnprep.targets.outputs import Settings, read_outputs
from support.command import call
from support.device_programs import run_kit
from support.unrounded import Unrounded

NAME = "Pixel 8"
Change = Callable[[Path], object]


@pytest.fixture(scope="module")
def returned(bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What the kit's program wrote on a device that computes as this host does."""
    root = tmp_path_factory.mktemp("device")
    mnnprep.kit(bundle, root / "kit")
    done = run_kit("python", root / "kit", root / "out")
    assert done.returncode == 0, done.stderr
    return root / "out"


@pytest.fixture
def outputs(returned: Path, tmp_path: Path) -> Path:
    """A copy to change."""
    shutil.copytree(returned, tmp_path / "out")
    return tmp_path / "out"


def judged(bundle: Path, outputs: Path, scratch: Path) -> Check:
    manifest = read_manifest(bundle)
    job = mnn_job(bundle, manifest, scratch)
    runs = read_outputs(outputs, job)
    return device_check(NAME, job.cases, runs, ruled(manifest)[1], manifest.budget, Unrounded())


def test_a_device_that_computes_the_same_passes(bundle: Path, outputs: Path, tmp_path: Path) -> None:
    check = judged(bundle, outputs, tmp_path)
    assert (check.check, check.status, check.required) == (f"target:{NAME}", Status.PASSED, True)
    assert check.subject == NAME
    assert check.numbers["precision"] == "high"
    assert check.numbers["narrowed"] == ["i: int32"]


def both(change: Callable[[np.ndarray], np.ndarray], file: str = "1/0.npy") -> Change:
    """Change an output in both runs."""

    def changed(outputs: Path) -> None:
        for name in ("shared", "fresh"):
            path = outputs / name / file
            np.save(path, change(np.load(path)))

    return changed


def with_nan(array: np.ndarray) -> np.ndarray:
    array[0, 0] = np.nan
    return array


def failed_there(outputs: Path) -> None:
    (outputs / "shared/2/error.txt").write_text("MNN could not compute output y\n")


def crashed(outputs: Path) -> None:
    """The program ended in the middle of case 3."""
    record = outputs / "run.txt"
    record.write_text(record.read_text().removesuffix("end\n"))
    shutil.rmtree(outputs / "fresh")
    (outputs / "shared/3/1.npy").unlink()
    shutil.rmtree(outputs / "shared/4")


def half_written(outputs: Path) -> None:
    crashed(outputs)
    path = outputs / "shared/3/0.npy"
    path.write_bytes(path.read_bytes()[:-2])


# What is wrong on the device: the outputs, what the check says.
WRONG: dict[str, tuple[Change, str]] = {
    "other numbers": (both(lambda a: a + 0.01), r"y in case 1 \(.*\): differs beyond the tolerance"),
    "another integer": (both(lambda a: a + 1, "0/1.npy"), r"i in case 0 .* elements differ"),
    "NaN": (both(with_nan), r"NaN at other places than in the reference \(1 elements\)"),
    "another shape": (both(lambda a: a.reshape(-1)), r"shape \[\d+\], but the reference has \[\d+, 3\]"),
    "another dtype": (
        both(lambda a: a.astype(np.float64)),
        "dtype float64, but the reference has float32",
    ),
    "integers for floats": (both(lambda a: a.astype(np.int32)), "dtype int32, but the reference has float32"),
    "a case that failed": (failed_there, r"case 2 .* did not run: MNN could not compute output y"),
    "a crash": (crashed, r"case 3 .* did not run: the program ended before it had written this case"),
    "a crash while writing": (half_written, r"case 3 .* did not run: the program ended before"),
    "a second run that is wrong": (
        lambda outputs: np.save(outputs / "fresh/1/0.npy", np.load(outputs / "fresh/1/0.npy") + 1),
        "a second run, in another process, is wrong, but the first was right",
    ),
}


@pytest.mark.parametrize("fault", WRONG)
def test_what_is_wrong_on_the_device_is_told(bundle: Path, outputs: Path, tmp_path: Path, fault: str) -> None:
    change, words = WRONG[fault]
    change(outputs)
    check = judged(bundle, outputs, tmp_path)
    assert check.status is Status.FAILED
    assert re.search(words, check.reason), check.reason


def edited(old: str, new: str) -> Change:
    def edit(outputs: Path) -> None:
        text = (outputs / "run.txt").read_text()
        assert old in text
        (outputs / "run.txt").write_text(text.replace(old, new))

    return edit


# What says nothing of the device: the outputs, the error, what it says.
REFUSED: dict[str, tuple[Change, type[Exception], str]] = {
    "a lost file": (
        lambda outputs: (outputs / "shared/1/0.npy").unlink(),
        RefusedError,
        r"an output that the program wrote is missing\n.*shared/1/0.npy \(y\)",
    ),
    "a lost case": (
        lambda outputs: shutil.rmtree(outputs / "fresh/1"),
        RefusedError,
        "an output that the program wrote is missing",
    ),
    "half a file": (
        lambda outputs: (outputs / "shared/1/0.npy").write_bytes(b"\x93NUMPY\x01\x00"),
        RefusedError,
        r"an output that came back is damaged\n.*shared/1/0.npy \(y\)",
    ),
    "no array": (
        lambda outputs: (outputs / "shared/1/0.npy").write_bytes(b"text"),
        RefusedError,
        "an output that came back is damaged",
    ),
    "objects": (
        lambda outputs: np.save(outputs / "shared/1/0.npy", np.array([{}]), allow_pickle=True),
        RefusedError,
        "an output that came back is damaged",
    ),
    "another output": (
        lambda outputs: (outputs / "shared/1/2.npy").touch(),
        RefusedError,
        "a file that the kit's program does not write\n.*shared/1/2.npy",
    ),
    "another case": (
        lambda outputs: shutil.copytree(outputs / "shared/0", outputs / "shared/17"),
        RefusedError,
        "does not write\n.*shared/17/0.npy",
    ),
    "a link": (
        lambda outputs: (
            (outputs / "shared/1/0.npy").rename(outputs.parent / "y.npy"),
            (outputs / "shared/1/0.npy").symlink_to(outputs.parent / "y.npy"),
        ),
        RefusedError,
        "does not write\n.*shared/1/0.npy",
    ),
    "no record": (lambda outputs: (outputs / "run.txt").unlink(), UsageError, "no run.txt"),
    "another record": (edited("mnnprep-run 1", "mnnprep-run 2"), UsageError, "is not what .* writes"),
    "half a record": (edited("threads 1\n", ""), UsageError, "is not what .* writes"),
    "no such precision": (edited("precision high", "precision 16"), UsageError, "states a precision"),
    "no such memory": (edited("memory normal", "memory none"), UsageError, "states a memory"),
    "no number": (edited("threads 1", "threads many"), UsageError, "states no number of threads"),
    "an empty record": (lambda outputs: (outputs / "run.txt").write_bytes(b""), UsageError, "is not what"),
}


@pytest.mark.parametrize("fault", REFUSED)
def test_what_says_nothing_of_the_device_is_refused(
    bundle: Path, outputs: Path, tmp_path: Path, fault: str
) -> None:
    change, kind, words = REFUSED[fault]
    change(outputs)
    with pytest.raises(kind) as told:
        judged(bundle, outputs, tmp_path)
    assert re.search(words, str(told.value)), str(told.value)


def noisy(decibels: float) -> Change:
    """Add noise of this SQNR to the floating output of every case, as half precision would."""

    def change(outputs: Path) -> None:
        for path in sorted(outputs.glob("*/*/0.npy")):
            array = np.load(path)
            sign = np.where(np.arange(array.size) % 2, 1, -1).reshape(array.shape)
            scale = np.sqrt(np.mean(np.square(array))) * 10 ** (-decibels / 20)
            np.save(path, (array + sign * scale).astype(array.dtype))

    return change


@pytest.mark.parametrize(
    ("setting", "decibels", "passes"),
    [
        ("", 40, False),
        ("precision low", 40, True),
        ("precision normal", 40, False),
        ("memory low", 40, True),
        ("precision low", 28, False),
    ],
)
def test_less_than_float32_is_held_to_an_sqnr(
    bundle: Path, outputs: Path, tmp_path: Path, setting: str, decibels: float, passes: bool
) -> None:
    noisy(decibels)(outputs)
    if setting:
        word = setting.partition(" ")[0]
        edited({"precision": "precision high", "memory": "memory normal"}[word], setting)(outputs)
    check = judged(bundle, outputs, tmp_path)
    assert (check.status is Status.PASSED) is passes, check.reason
    if decibels < DEFAULT_LOW_SQNR:
        assert "has 28.0 dB, but 30 dB are required" in check.reason


def test_integers_are_exact_at_every_precision(bundle: Path, outputs: Path, tmp_path: Path) -> None:
    edited("precision high", "precision low")(outputs)
    both(lambda a: a + 1, "0/1.npy")(outputs)
    assert judged(bundle, outputs, tmp_path).status is Status.FAILED


def test_who_is_at_fault_in_half_precision_is_told_as_of_a_target(bundle: Path, outputs: Path) -> None:
    edited("precision high", "precision low")(outputs)
    noisy(20)(outputs)
    (check,) = (
        c
        for c in mnnprep.verify(bundle, outputs=outputs, device=NAME).evidence
        if c.check == f"target:{NAME}"
    )
    assert check.status is Status.FAILED
    assert "rounding to the type alone leaves" in check.reason
    assert check.reason.endswith("(by MNN)")


def test_a_second_run_that_is_wrong_in_half_precision_counts(
    bundle: Path, outputs: Path, tmp_path: Path
) -> None:
    edited("precision high", "precision low")(outputs)
    path = outputs / "fresh" / "1" / "0.npy"
    np.save(path, np.load(path) * 2)
    check = judged(bundle, outputs, tmp_path)
    assert check.status is Status.FAILED
    assert "a second run, in another process, is wrong, but the first was right" in check.reason


def test_the_budget_that_was_granted_holds_for_a_device(bundle: Path, outputs: Path, tmp_path: Path) -> None:
    edited("precision high", "precision low")(outputs)
    noisy(28)(outputs)
    manifest = read_manifest(bundle)
    job = mnn_job(bundle, manifest, tmp_path)
    runs = read_outputs(outputs, job)
    check = device_check(NAME, job.cases, runs, ruled(manifest)[1], 25.0, Unrounded())
    assert check.status is Status.PASSED


def test_what_a_machine_that_does_not_say_may_compute_in() -> None:
    assert Settings().arithmetic_elsewhere == FLOAT32
    assert Settings(precision="low").arithmetic_elsewhere == FLOAT16
    assert Settings(backend="opencl", precision="normal").arithmetic_elsewhere == FLOAT16
    assert Settings(memory="low").arithmetic_elsewhere == COARSE


def test_normal_precision_is_float32_on_the_cpu_alone() -> None:
    assert not Settings(precision="normal").reduced
    assert Settings(backend="opencl", precision="normal").reduced
    assert not Settings(backend="opencl").reduced
    assert Settings(memory="low").reduced


def test_verify_judges_a_device(bundle: Path, outputs: Path) -> None:
    found = mnnprep.verify(bundle, outputs=outputs, device=NAME, precision="high")
    assert found.verdict.value == "proven"
    assert [c.status for c in found.evidence if c.check == f"target:{NAME}"] == [Status.PASSED]
    both(lambda a: a + 0.01)(outputs)
    result = call("verify", bundle, "--outputs", outputs, "--device", NAME, "--json")
    assert result.code == 1
    document = result.document()
    assert document["verdict"] == "differs"
    failed = [c["check"] for c in document["evidence"] if c["status"] != "passed"]
    assert failed == [f"target:{NAME}"]


def test_a_changed_bundle_is_not_judged(bundle: Path, outputs: Path, tmp_path: Path) -> None:
    shutil.copytree(bundle, tmp_path / "copy")
    (tmp_path / "copy/model.mnn").write_bytes(b"another model")
    found = mnnprep.verify(tmp_path / "copy", outputs=outputs, device=NAME)
    (check,) = (c for c in found.evidence if c.check == f"target:{NAME}")
    assert (check.status, check.subject) == (Status.NOT_RUN, NAME)
    assert found.verdict.value == "differs"


def test_the_outputs_of_another_bundle_are_a_wrong_call(bundle: Path, outputs: Path, tmp_path: Path) -> None:
    edited(f"bundle {'0' * 0}", "bundle f")(outputs)
    result = call("verify", bundle, "--outputs", outputs, "--device", NAME)
    assert result.code == 2
    assert "the outputs are those of another bundle's kit" in result.err
    assert "running" not in result.err


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("--outputs", "out"), "no name of the device"),
        (("--device", NAME), "no outputs"),
        (("--precision", "low"), "no outputs"),
        (("--outputs", "out", "--device", "a\nb"), "a device has a name of printable characters"),
        (("--outputs", "out", "--device", "x" * 101), "at most 100"),
        (("--outputs", "nowhere", "--device", NAME), "no outputs of a kit's program at this path"),
    ],
)
def test_a_wrong_call_is_told(bundle: Path, options: tuple[str, ...], words: str) -> None:
    result = call("verify", bundle, *options)
    assert result.code == 2
    assert words in result.err


def test_outputs_of_another_precision_are_a_wrong_call(bundle: Path, outputs: Path) -> None:
    result = call("verify", bundle, "--outputs", outputs, "--device", NAME, "--precision", "low")
    assert result.code == 2
    assert "the outputs are of another precision\n  seen: high, not low" in result.err
    with pytest.raises(UsageError, match="there is no such precision"):
        mnnprep.verify(bundle, outputs=outputs, device=NAME, precision="half")


def test_no_device_is_asked_for_nothing() -> None:
    assert device_outputs("", "") is None
    assert device_outputs("out", NAME) == DeviceOutputs(directory="out", name=NAME)
    assert msgspec.structs.asdict(Settings())["backend"] == "cpu"
