"""Writing a bundle: whole or not at all, and what MNNConvert reads of it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

from evaluation.nets.mnn_models import convert, small_net
from mnnprep.bundle import writer
from mnnprep.bundle.manifest import BundleFile, Manifest, SignatureRecord, TensorRecord, read_manifest
from mnnprep.errors import InternalError, SystemFault, UsageError
from mnnprep.model.files import Arrays, atomic_write, file_ref
from mnnprep.safety import renames

DATA = Path(__file__).parent / "data"


def bundle(directory: Path, mark: str = "old") -> Path:
    """A directory that is a bundle, as far as replacing it goes."""
    directory.mkdir(parents=True)
    (directory / "manifest.json").write_text(json.dumps({"schema": "mnnprep.bundle/1"}))
    (directory / "mark").write_text(mark)
    return directory


def listing(directory: Path) -> list[str]:
    return sorted(p.relative_to(directory).as_posix() for p in directory.rglob("*"))


def test_a_new_target_appears_whole_with_its_parents(tmp_path: Path) -> None:
    target = tmp_path / "a" / "b"
    with writer.stage(target) as staged:
        assert not target.exists()
        assert staged.parent == target.parent
        (staged / "cases").mkdir()
        (staged / "cases" / "0.npz").write_bytes(b"x")
    assert listing(tmp_path) == ["a", "a/b", "a/b/cases", "a/b/cases/0.npz"]
    mask = os.umask(0)
    os.umask(mask)
    assert target.stat().st_mode & 0o777 == 0o777 & ~mask


def test_an_empty_directory_is_taken(tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    with writer.stage(tmp_path / "out") as staged:
        (staged / "mark").write_text("new")
    assert listing(tmp_path) == ["out", "out/mark"]


def test_a_bundle_is_replaced_only_with_force(tmp_path: Path) -> None:
    old = bundle(tmp_path / "out")
    with pytest.raises(UsageError, match="already a bundle") as error:
        writer.check_target(old)
    assert "--force" in error.value.next
    with writer.stage(old, force=True) as staged:
        (staged / "new").write_text("new")
        assert (old / "mark").read_text() == "old"
    assert listing(tmp_path) == ["out", "out/new"]


@pytest.mark.parametrize("force", [False, True])
def test_what_is_not_a_bundle_is_never_replaced(tmp_path: Path, force: bool) -> None:
    (tmp_path / "file").write_text("mine")
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "manifest.json").write_text('{"schema": "other/1"}')
    for name, what in (("file", "not a directory"), ("photos", "not a bundle")):
        with pytest.raises(UsageError, match=what), writer.stage(tmp_path / name, force=force):
            pytest.fail("the block must not be entered")
    assert listing(tmp_path) == ["file", "photos", "photos/manifest.json"]


def test_the_current_directory_and_a_mount_point_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    for target in (Path("."), tmp_path / "here", tmp_path):
        with pytest.raises(UsageError, match="current directory"):
            writer.check_target(target, force=True)
    with pytest.raises(UsageError, match="mount point"):
        writer.check_target(Path("/proc"))


def test_a_parent_that_is_a_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine")
    with pytest.raises(UsageError, match="can't be written to") as error:
        writer.check_target(tmp_path / "file" / "out")
    assert error.value.exit_code == 2


def test_a_directory_that_can_not_be_written_to_is_a_fault_of_the_system(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "access", lambda *_: False)  # for root every directory can be
    with pytest.raises(SystemFault, match="can't be written to"):
        writer.check_target(tmp_path / "out")


def test_a_link_to_a_bundle_stays_a_link(tmp_path: Path) -> None:
    bundle(tmp_path / "real")
    (tmp_path / "link").symlink_to("real")
    with writer.stage(tmp_path / "link", force=True) as staged:
        (staged / "new").write_text("new")
    assert (tmp_path / "link").is_symlink()
    assert listing(tmp_path / "real") == ["new"]


@pytest.mark.parametrize("error", [KeyboardInterrupt, RuntimeError, SystemExit])
def test_an_error_in_the_block_leaves_everything_as_it_was(
    tmp_path: Path, error: type[BaseException]
) -> None:
    old = bundle(tmp_path / "out")
    before = listing(tmp_path)
    for target in (old, tmp_path / "deep" / "er" / "new"):
        with pytest.raises(error), writer.stage(target, force=True) as staged:
            (staged / "half").write_text("half")
            raise error
    assert listing(tmp_path) == before


@pytest.fixture
def no_exchange(monkeypatch: pytest.MonkeyPatch) -> None:
    """A file system that can't exchange two directories in one step."""
    monkeypatch.setattr(renames, "_renameat2", lambda *_: False)


@pytest.mark.usefixtures("no_exchange")
@pytest.mark.parametrize("fatal", [1, 2, 3])
@pytest.mark.parametrize("late", [False, True])
def test_an_interrupt_while_renaming_leaves_the_old_or_the_new_bundle(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fatal: int, late: bool
) -> None:
    """Interrupted before and after each of the renames, where it takes several."""
    old = bundle(tmp_path / "out")
    real, calls = os.rename, 0

    def rename(source: object, target: object) -> None:
        nonlocal calls
        calls += 1
        if calls == fatal and not late:
            raise KeyboardInterrupt
        real(source, target)  # type: ignore[arg-type]
        if calls == fatal:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt), writer.stage(old, force=True) as staged:
        (staged / "mark").write_text("new")
        monkeypatch.setattr(os, "rename", rename)
    monkeypatch.undo()
    assert [p.name for p in tmp_path.iterdir()] == ["out"]
    assert (old / "mark").read_text() == ("new" if (fatal, late) >= (2, True) else "old")


def test_an_interrupt_as_they_change_places_leaves_the_new_bundle(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    old = bundle(tmp_path / "out")
    real = renames._renameat2

    def exchanged(*arguments: Any) -> bool:
        assert real(*arguments), "this file system can't exchange"
        raise SystemExit(143)

    monkeypatch.setattr(renames, "_renameat2", exchanged)
    with pytest.raises(SystemExit), writer.stage(old, force=True) as staged:
        (staged / "mark").write_text("new")
    assert listing(tmp_path) == ["out", "out/mark"]
    assert (old / "mark").read_text() == "new"


def test_nothing_stands_between_two_bundles(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The old one is replaced in one step: no rename takes it away first."""
    old = bundle(tmp_path / "out")
    monkeypatch.setattr(os, "rename", lambda *_: pytest.fail("a rename"))
    with writer.stage(old, force=True) as staged:
        (staged / "mark").write_text("new")
    assert listing(tmp_path) == ["out", "out/mark"]


def test_a_bundle_put_aside_by_a_run_that_was_killed_comes_back(tmp_path: Path) -> None:
    """Where it takes two renames and the kill came between: a reader is told how, the next run does it."""
    bundle(tmp_path / ".out.mnnprep-abcdefgh.old")
    target = tmp_path / "out"
    with pytest.raises(UsageError) as caught:
        read_manifest(target)
    assert caught.value.next.endswith(f"mv {tmp_path}/.out.mnnprep-abcdefgh.old {target}")
    with pytest.raises(UsageError, match="already a bundle"), writer.claim(target):
        pytest.fail("it is there again")
    assert listing(tmp_path) == ["out", "out/manifest.json", "out/mark"]


def test_what_killed_runs_left_is_taken_away_and_nothing_else(tmp_path: Path) -> None:
    bundle(tmp_path / "out")
    ours = [".out.mnnprep-abcdefgh.new", ".out.mnnprep-abcdefgh.old", ".out.mnnprep-lock"]
    theirs = [
        ".out.settings.old",
        ".out2.mnnprep-abcdefgh.new",
        ".out.mnnprep-abcdefghi.new",
        ".out.mnnprep-ABCDEFGH.new",
    ]
    for name in (*ours[:2], *theirs):
        (tmp_path / name).mkdir()
        (tmp_path / name / "file").write_text("x")
    (tmp_path / ours[2]).write_text("1")
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "kept").write_text("kept")
    (tmp_path / ".out.mnnprep-a_link_1.new").symlink_to("elsewhere")
    with writer.claim(tmp_path / "out", force=True):
        pass
    assert sorted(p.name for p in tmp_path.iterdir()) == sorted(
        [*theirs, ".out.mnnprep-a_link_1.new", "elsewhere", "out"]
    )
    assert (tmp_path / "elsewhere" / "kept").read_text() == "kept"


def test_a_second_run_says_before_its_work_that_another_has_the_target(tmp_path: Path) -> None:
    target = tmp_path / "deep" / "out"
    code = (
        "import sys; from pathlib import Path; from mnnprep.bundle import writer\n"
        "with writer.claim(Path(sys.argv[1])): print('held', flush=True); sys.stdin.read()"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", code, str(target)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    assert process.stdout is not None
    assert process.stdout.readline() == b"held\n"
    for enter in (writer.claim, writer.stage):
        with pytest.raises(UsageError, match="another run is writing this target") as caught, enter(target):
            pytest.fail("the block must not be entered")
        assert f"process {process.pid}" in caught.value.seen
    assert listing(tmp_path) == ["deep", "deep/.out.mnnprep-lock"]
    process.kill()
    process.communicate()
    with writer.stage(target) as staged:  # its lock is no obstacle any more
        (staged / "mark").write_text("new")
    assert listing(tmp_path) == ["deep", "deep/out", "deep/out/mark"]


def test_the_threads_of_one_process_exclude_each_other_too(tmp_path: Path) -> None:
    def another() -> str:
        try:
            with writer.claim(tmp_path / "out"):
                return "entered"
        except UsageError as error:
            return error.what

    with writer.claim(tmp_path / "out"), writer.claim(tmp_path / "out"), ThreadPoolExecutor() as pool:
        assert pool.submit(another).result() == "another run is writing this target"
    assert another() == "entered"
    assert listing(tmp_path) == []


def test_a_very_long_name_of_a_target_is_one_like_others(tmp_path: Path) -> None:
    name = "n" * 255
    with writer.stage(tmp_path / name) as staged:
        (staged / "mark").write_text("new")
    with atomic_write(tmp_path / ("f" * 255)) as file:
        file.write(b"x")
    assert listing(tmp_path) == ["f" * 255, name, f"{name}/mark"]


def test_a_target_that_appears_meanwhile_is_not_replaced(tmp_path: Path) -> None:
    target = tmp_path / "out"
    with pytest.raises(UsageError, match="already a bundle"), writer.stage(target) as staged:
        (staged / "mark").write_text("mine")
        bundle(target, "theirs")
    assert (target / "mark").read_text() == "theirs"
    assert [p.name for p in tmp_path.iterdir()] == ["out"]


def staged_manifest(staged: Path, tmp_path: Path) -> Manifest:
    (tmp_path / "content").write_bytes(b"content")
    manifest = msgspec.json.decode((DATA / "manifest-proven.json").read_bytes(), type=Manifest)
    model = writer.add_file(staged, "model.onnx", file_ref(tmp_path / "content"))
    mnn = writer.add_file(staged, "model.mnn", file_ref(tmp_path / "content"))
    cases = []
    for case in manifest.cases:
        file = writer.add_file(staged, case.path, file_ref(tmp_path / "content"))
        cases.append(msgspec.structs.replace(case, sha256=file.sha256, size=file.size))
    artifact = msgspec.structs.replace(manifest.artifact, files=[model])
    return msgspec.structs.replace(manifest, artifact=artifact, mnn=mnn, cases=cases, files=[])


def test_finish_lists_the_files_and_gives_the_same_bytes_twice(tmp_path: Path) -> None:
    for name in ("a", "b"):
        with writer.stage(tmp_path / name) as staged:
            writer.finish(staged, staged_manifest(staged, tmp_path))
    complete = read_manifest(tmp_path / "a")
    assert [f.path for f in complete.files] == [
        *(f"cases/{i}.npz" for i in range(5)),
        "model.mnn",
        "model.onnx",
    ]
    assert listing(tmp_path / "a") == listing(tmp_path / "b")
    for path in (p for p in (tmp_path / "a").rglob("*") if p.is_file()):
        assert path.read_bytes() == (tmp_path / "b" / path.relative_to(tmp_path / "a")).read_bytes()
    assert "report.html" in listing(tmp_path / "a")


def test_finish_refuses_a_manifest_that_the_files_contradict(tmp_path: Path) -> None:
    with (
        pytest.raises(InternalError, match="not match its manifest"),
        writer.stage(tmp_path / "a") as staged,
    ):
        manifest = staged_manifest(staged, tmp_path)
        (staged / "model.mnn").write_bytes(b"another")
        writer.finish(staged, manifest)
    assert not (tmp_path / "a").exists()


@pytest.mark.parametrize("path", ["../out", "/etc/out", "", "a/../../b"])
def test_a_file_outside_the_bundle_is_an_error(tmp_path: Path, path: str) -> None:
    (tmp_path / "content").write_bytes(b"content")
    with pytest.raises(InternalError):
        writer.add_file(tmp_path, path, file_ref(tmp_path / "content"))


def record(name: str, dtype: str, shape: list[int | str], mnn_name: str = "") -> TensorRecord:
    return TensorRecord(
        name=name,
        source_name=name,
        mnn_name=mnn_name or name,
        dtype=dtype,
        mnn_dtype=dtype,
        shape=shape,
        layout="NCHW",
    )


def test_the_layout_of_a_test_directory(tmp_path: Path) -> None:
    signature = SignatureRecord(
        inputs=[record("x", "float32", ["n", 2], "net/x:0"), record("mask", "bool", [2])],
        outputs=[record("y", "int64", [2])],
        dims={},
    )
    arrays: Arrays = {
        "inputs/x": np.array([[0.1, -1e-30], [3.0, 1 / 3]], np.float32),
        "inputs/mask": np.array([True, False]),
        "outputs/y": np.array([2**40, -1]),
    }
    assert writer.write_mnn_test(tmp_path, arrays, signature) == ""
    assert listing(tmp_path) == ["input.json", "mask.txt", "net", "net/x:0.txt", "y.txt"]
    layout = {
        "inputs": [{"name": "net/x:0", "shape": [2, 2]}, {"name": "mask", "shape": [2]}],
        "outputs": ["y"],
    }
    assert json.loads((tmp_path / "input.json").read_text()) == layout
    printed = np.array([float(line) for line in (tmp_path / "net" / "x:0.txt").read_text().split()])
    assert np.array_equal(printed.astype(np.float32), arrays["inputs/x"].ravel())
    assert (tmp_path / "mask.txt").read_text() == "1\n0\n"
    assert (tmp_path / "y.txt").read_text() == "1099511627776\n-1\n"


@pytest.mark.parametrize(
    "names", [("../x", "y"), ("a/../../x", "y"), ("same", "same"), ("a", "a.txt/b"), ("x\0", "y")]
)
def test_names_that_can_not_be_files_write_nothing(tmp_path: Path, names: tuple[str, str]) -> None:
    signature = SignatureRecord(
        inputs=[record("x", "float32", [1], names[0])],
        outputs=[record("y", "float32", [1], names[1])],
        dims={},
    )
    arrays: Arrays = {"inputs/x": np.zeros(1, np.float32), "outputs/y": np.ones(1, np.float32)}
    assert writer.write_mnn_test(tmp_path / "test", arrays, signature)
    assert listing(tmp_path) == []


@pytest.mark.parametrize(("offset", "word"), [(0.0, "TEST_SUCCESS"), (0.1, "TESTERROR")])
def test_the_converter_reads_the_test_directory(tmp_path: Path, offset: float, word: str) -> None:
    """It finds the files, feeds them and compares: right references pass, wrong ones don't."""
    small_net(tmp_path / "model.onnx")
    x = np.linspace(-2, 2, 6, dtype=np.float32).reshape(2, 3)
    arrays: Arrays = {"inputs/x": x, "outputs/y": (1 / (1 + np.exp(-x)) + offset).astype(np.float32)}
    signature = SignatureRecord(
        inputs=[record("x", "float32", ["batch", 3], "net/x:0")],
        outputs=[record("y", "float32", ["batch", 3], "net/y:0")],
        dims={},
    )
    assert writer.write_mnn_test(tmp_path / "test", arrays, signature) == ""
    printed = convert(tmp_path, "--modelFile", "model.onnx", "--MNNModel", "model.mnn", "--testdir", "test")
    assert word in printed
    assert "Skip check" not in printed
    assert "Can't open" not in printed


def test_a_case_of_very_many_numbers_is_not_written_as_text(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    signature = SignatureRecord(inputs=[record("x", "float32", [3])], outputs=[], dims={})
    monkeypatch.setattr(writer, "LARGEST_TEXT", 2)
    assert (
        writer.write_mnn_test(tmp_path / "test", {"inputs/x": np.ones(3, np.float32)}, signature)
        == "3 numbers as text are left out"
    )
    assert not (tmp_path / "test").exists()


def test_a_bundle_file_keeps_its_hash(tmp_path: Path) -> None:
    (tmp_path / "content").write_bytes(b"")
    empty = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
    assert writer.add_file(tmp_path, "a/b", file_ref(tmp_path / "content")) == BundleFile("a/b", empty, 0)
    with pytest.raises(InternalError, match="twice"):
        writer.add_file(tmp_path, "a/b", file_ref(tmp_path / "content"))
