"""Killed at random points, on a full disk, twice at once: nothing or a part that goes on, never a wrong
file.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from mnnprep import consolidate
from mnnprep.errors import RefusedError, UsageError
from mnnprep.weights import copying, hashing
from mnnprep.weights.resumable_output import Part

MIB = 1 << 20


def checkpoint(directory: Path, mebibytes: int) -> dict[str, Any]:
    """Four shards with an index."""
    generator = np.random.default_rng(0)
    whole: dict[str, Any] = {}
    weight_map = {}
    directory.mkdir()
    for shard in range(4):
        part = {
            f"layer{shard}.{i}": generator.random(mebibytes * MIB // 32, dtype=np.float32) for i in range(2)
        }
        part[f"layer{shard}.half"] = part[f"layer{shard}.0"][:999].astype(np.float16)
        save_file(part, directory / f"{shard}.safetensors")
        weight_map |= dict.fromkeys(part, f"{shard}.safetensors")
        whole |= part
    (directory / "model.safetensors.index.json").write_text(json.dumps({"weight_map": weight_map}))
    return whole


def run(source: Path, out: Path, *options: str, **popen: Any) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "mnnprep", "consolidate", str(source), "-o", str(out), *options]
    return subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, **popen)


def finish(process: subprocess.Popen[bytes]) -> int:
    process.communicate(timeout=120)
    return process.returncode


def require_no_stray(out: Path) -> None:
    """No manifest without its file or of another one, and nothing but what the next run takes up."""
    left = {path.name.removeprefix(out.name) for path in out.parent.iterdir() if out.name in path.name}
    assert left <= {"", ".manifest.json", ".part", ".part.json", ".part.json.new", ".manifest.json.part"}
    if ".manifest.json" in left:
        manifest = json.loads(Path(f"{out}.manifest.json").read_bytes())
        assert manifest["size"] == out.stat().st_size
        assert manifest["sha256"] in (None, hashlib.sha256(out.read_bytes()).hexdigest())


DIES = """
import os, sys
from pathlib import Path
left = [int(sys.argv[1])]
def deadly(function):
    def call(*arguments, **keywords):
        left[0] -= 1
        if left[0] < 0:
            os._exit(9)
        return function(*arguments, **keywords)
    return call
for name in ("replace", "rename", "unlink", "remove", "fsync", "fdatasync", "ftruncate"):
    setattr(os, name, deadly(getattr(os, name)))
from mnnprep.cli.main import main
main(["consolidate", *sys.argv[2:]])
"""


@pytest.mark.parametrize("old", [False, True])
def test_ended_before_each_step_that_the_disk_sees(tmp_path: Path, old: bool) -> None:
    first, second = tmp_path / "first", tmp_path / "second"
    checkpoint(first, 1)
    checkpoint(second, 2)
    right = {}
    for source in (first, second):
        consolidate(source, tmp_path / "right")
        right[source] = (tmp_path / "right").read_bytes()
        (tmp_path / "right").unlink()
        (tmp_path / "right.manifest.json").unlink()
    out = tmp_path / "out"
    for number in range(100):
        for left in tmp_path.glob("out*"):
            left.unlink()
        if old:
            consolidate(first, out)
        done = subprocess.run(
            [sys.executable, "-c", DIES, str(number), str(second), "-o", str(out), "--force"],
            capture_output=True,
        )
        require_no_stray(out)
        assert not out.exists() or out.read_bytes() in [*right.values()][0 if old else 1 :]
        if done.returncode == 0:
            break
        assert done.returncode == 9, done.stderr
        replaced = out.exists() and out.read_bytes() == right[second]
        if replaced:  # asked again, it says that the output is there, and completes what was left
            with pytest.raises(UsageError, match="exists"):
                consolidate(second, out)
            assert Path(f"{out}.manifest.json").is_file()
        consolidate(second, out, force=True)
        assert out.read_bytes() == right[second]
        assert {path.name for path in tmp_path.glob("out*")} == {"out", "out.manifest.json"}
    assert 8 < number < 99


@pytest.mark.parametrize(("kills", "mebibytes"), [pytest.param(50, 160, marks=pytest.mark.slow), (4, 48)])
def test_killed_at_random_points(tmp_path: Path, kills: int, mebibytes: int) -> None:
    source = tmp_path / "source"
    checkpoint(source, mebibytes)
    right = tmp_path / "right.safetensors"
    assert finish(run(source, right)) == 0
    started = time.monotonic()
    assert finish(run(source, tmp_path / "timed")) == 0
    whole_run = time.monotonic() - started
    points = random.Random(7)
    out = tmp_path / "out"
    midway = resumed = 0
    for number in range(kills):
        options = [["--no-hash"], [], ["--dtype", "float16"]][number % 7 // 3]
        process = run(source, out, *options)
        # half of the points while the file is written, the others anywhere in the run
        if number % 2:
            deadline = time.monotonic() + 60
            while process.poll() is None and not Path(f"{out}.part").exists() and time.monotonic() < deadline:
                time.sleep(0.001)
            time.sleep(points.uniform(0, whole_run / 2))
        else:
            time.sleep(points.uniform(0, whole_run * 1.1))
        process.send_signal(signal.SIGKILL)
        finish(process)
        require_no_stray(out)
        left = {path.name for path in tmp_path.iterdir() if path.name.startswith("out")}
        if out.exists() and "float16" not in options:
            assert out.read_bytes() == right.read_bytes()
        else:
            midway += "out.part" in left
        if number % 3 == 2 or out.exists():
            out.unlink(missing_ok=True)
            Path(f"{out}.manifest.json").unlink(missing_ok=True)
            resumed += Path(f"{out}.part.json").exists()
            assert finish(run(source, out)) == 0
            assert out.read_bytes() == right.read_bytes()
            assert {path.name for path in tmp_path.iterdir() if path.name.startswith("out")} == {
                "out",
                "out.manifest.json",
            }
            out.unlink()
            Path(f"{out}.manifest.json").unlink()
    if kills > 10:
        assert midway > kills // 5
        assert resumed > 0


@pytest.mark.parametrize("hashed", [True, False])
def test_an_interrupted_run_goes_on_where_it_was(
    tmp_path: Path, hashed: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = tmp_path / "source"
    checkpoint(source, 64)
    consolidate(source, tmp_path / "right.safetensors")
    out = tmp_path / "out"
    synced: list[int] = []
    note = Part.sync

    def notes_and_fails(self: Part, written: int) -> None:
        note(self, written)
        synced.append(written)
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Part, "sync", notes_and_fails)
    with pytest.raises(RefusedError, match="became full"):
        consolidate(source, out, hashed=hashed)
    monkeypatch.undo()
    assert not out.exists()
    done: list[int] = []
    consolidate(source, out, hashed=hashed, progress=lambda now, _: done.append(now))
    assert out.read_bytes() == (tmp_path / "right.safetensors").read_bytes()
    assert min(done) >= synced[-1] >= 16 * MIB
    assert not list(tmp_path.glob("out.part*"))


def test_a_part_of_another_plan_is_not_gone_on_with(tmp_path: Path) -> None:
    source = tmp_path / "source"
    checkpoint(source, 4)
    out = tmp_path / "out"
    Path(f"{out}.part").write_bytes(b"x" * 5 * MIB)
    Path(f"{out}.part.json").write_text('{"plan": "another", "synced": 5000000}')
    consolidate(source, out)
    assert load_file(out)["layer3.half"].shape == (999,)
    right = out.read_bytes()
    for journal in ("", "[]", '{"synced": -4}', "\x00"):
        Path(f"{out}.part").write_bytes(b"x" * 5 * MIB)
        Path(f"{out}.part.json").write_text(journal)
        consolidate(source, out, force=True)
        assert out.read_bytes() == right


@pytest.mark.parametrize("hashed", [True, False])
def test_a_checkpoint_that_changes_while_it_is_read(tmp_path: Path, hashed: bool) -> None:
    source = tmp_path / "source"
    checkpoint(source, 4)
    with pytest.raises(RefusedError, match="changed while it was read"):
        consolidate(
            source,
            tmp_path / "out",
            hashed=hashed,
            progress=lambda *_: os.utime(source / "2.safetensors", (0, 0)),
        )
    assert not (tmp_path / "out").exists()


def test_two_runs_at_once(tmp_path: Path) -> None:
    source = tmp_path / "source"
    checkpoint(source, 4)
    held = Part(tmp_path / "out", "plan", 1000)
    with pytest.raises(UsageError, match="another run"):
        consolidate(source, tmp_path / "out")
    held.close()
    consolidate(source, tmp_path / "out")


@pytest.mark.parametrize("module", [copying, hashing])
def test_a_disk_that_becomes_full(tmp_path: Path, module: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    source = tmp_path / "source"
    checkpoint(source, 16)

    def full(*_: object) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(module, "write_all", full)
    monkeypatch.setattr(os, "copy_file_range", full)
    with pytest.raises(RefusedError, match="became full"):
        consolidate(source, tmp_path / "out", hashed=module is hashing)
    assert not list(tmp_path.glob("out*"))


def test_a_limit_on_the_size_of_files(tmp_path: Path) -> None:
    import resource

    source = tmp_path / "source"
    checkpoint(source, 16)
    process = run(
        source,
        tmp_path / "out",
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (8 * MIB, 8 * MIB)),
    )
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 3
    assert b"full" in errors
    assert not list(tmp_path.glob("out*"))


@pytest.fixture
def small_disk(tmp_path: Path) -> Any:
    """A file system of 24 MiB, where this user may mount one."""
    place = tmp_path / "disk"
    place.mkdir()
    mount = shutil.which("mount")
    if (
        mount is None
        or subprocess.run(
            [mount, "-t", "tmpfs", "-o", "size=24m", "tmpfs", str(place)], capture_output=True
        ).returncode
    ):
        pytest.skip("no file system can be mounted here")
    yield place
    subprocess.run(["umount", str(place)], check=True)


def test_a_disk_that_is_too_small(tmp_path: Path, small_disk: Path) -> None:
    source = tmp_path / "source"
    checkpoint(source, 32)
    process = run(source, small_disk / "out")
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 3
    assert b"not enough room" in errors
    assert not list(small_disk.iterdir())
    (small_disk / "other").write_bytes(b"x" * MIB)
    consolidate(source, small_disk / "half", dtype="float16", hashed=False)
    assert {path.name for path in small_disk.iterdir()} == {"half", "half.manifest.json", "other"}
