"""Making environments: what a root is unpacked from, what is refused, and that nothing is left half-made."""

from __future__ import annotations

import io
import json
import platform
import shutil
import struct
import sys
import tarfile
import zipfile
from collections.abc import Mapping
from hashlib import sha256
from pathlib import Path

import pytest

from mnnprep import deps
from mnnprep.commands import target as command
from mnnprep.errors import RefusedError, UsageError
from mnnprep.model.target import Target, host_machine
from mnnprep.targets import adding, tools, wheels
from mnnprep.targets.environment import Unavailable, worker_of
from mnnprep.targets.places import (
    EnvironmentRecord,
    engine_of,
    environments,
    home,
    root_of,
    write_record,
)
from mnnprep.targets.rootfs import find_python, unpack_root
from support.command import call
from support.emulators import OTHER, fake_emulator, fake_engine

AARCH64, X86_64 = 183, 62
PYTHON = "usr/bin/python3.11"


def elf(machine: int) -> bytes:
    """The head of a 64-bit ELF program for *machine*."""
    return b"\x7fELF\x02\x01\x01" + bytes(9) + struct.pack("<HH", 2, machine) + bytes(44)


def archive(path: Path, files: Mapping[str, bytes], links: Mapping[str, str] | None = None) -> Path:
    with tarfile.open(path, "w") as tar:
        for name, data in files.items():
            info = tarfile.TarInfo(name)
            info.size, info.mode = len(data), 0o755
            tar.addfile(info, io.BytesIO(data))
        for name, target in (links or {}).items():
            info = tarfile.TarInfo(name)
            info.type, info.linkname = tarfile.SYMTYPE, target
            tar.addfile(info)
    return path


def test_a_root_is_unpacked_from_an_archive_and_its_links_stay_in_it(tmp_path: Path) -> None:
    given = archive(
        tmp_path / "root.tar", {PYTHON: elf(AARCH64)}, {"bin": "/usr/bin", "usr/bin/python3": "python3.11"}
    )
    tree = tmp_path / "tree"
    tree.mkdir()
    unpack_root(given, tree, "arm64")
    assert find_python(tree, "arm64") == (PYTHON, "3.11")
    with pytest.raises(RefusedError, match="another architecture"):
        find_python(tree, "x86_64")


@pytest.mark.parametrize("name", ["../out", "a/../../out"])
def test_nothing_is_unpacked_outside(tmp_path: Path, name: str) -> None:
    tree = tmp_path / "tree"
    tree.mkdir()
    with pytest.raises(RefusedError, match="could not be read") as caught:
        unpack_root(archive(tmp_path / "a.tar", {f"{name}/file": b"x"}), tree, "arm64")
    assert "leads out of it" in caught.value.seen
    assert not (tmp_path / "out").exists()


def test_a_link_of_an_archive_leads_nowhere_else(tmp_path: Path) -> None:
    tree, outside = tmp_path / "tree", tmp_path / "outside"
    tree.mkdir()
    outside.mkdir()
    path = tmp_path / "a.tar"
    with tarfile.open(path, "w") as tar:
        link = tarfile.TarInfo("lib")
        link.type, link.linkname = tarfile.SYMTYPE, str(outside)
        tar.addfile(link)
        file = tarfile.TarInfo("lib/file")
        file.size = 1
        tar.addfile(file, io.BytesIO(b"x"))
        device = tarfile.TarInfo("null")
        device.type = tarfile.CHRTYPE
        tar.addfile(device)
    unpack_root(path, tree, "arm64")
    assert list(outside.iterdir()) == []
    assert (tree / str(outside).lstrip("/") / "file").read_bytes() == b"x"
    assert not (tree / "null").exists()


def blob(folder: Path, data: bytes) -> dict[str, str]:
    digest = sha256(data).hexdigest()
    (folder / "blobs" / "sha256").mkdir(parents=True, exist_ok=True)
    (folder / "blobs" / "sha256" / digest).write_bytes(data)
    return {"digest": f"sha256:{digest}"}


def image(folder: Path, machine: int) -> dict[str, str]:
    """An image of two layers, of which the upper takes files of the lower away; its manifest's descriptor."""
    lower = archive(folder / "lower.tar", {PYTHON: elf(machine), "usr/lib/old": b"1", "opt/a/b": b"2"})
    upper = archive(
        folder / "upper.tar", {"usr/lib/.wh.old": b"", "opt/a/.wh..wh..opq": b"", "opt/a/c": b"3"}
    )
    layers = [blob(folder, path.read_bytes()) for path in (lower, upper)]
    lower.unlink()
    upper.unlink()
    return blob(folder, json.dumps({"layers": layers}).encode())


@pytest.mark.parametrize("packed", [False, True])
def test_the_layers_of_an_image_for_this_architecture(tmp_path: Path, packed: bool) -> None:
    folder, tree = tmp_path / "image", tmp_path / "tree"
    folder.mkdir()
    tree.mkdir()
    manifests = [
        {**image(folder, machine), "platform": {"architecture": name, "os": "linux"}}
        for name, machine in (("amd64", X86_64), ("arm64", AARCH64))
    ]
    index = blob(folder, json.dumps({"manifests": manifests}).encode())
    (folder / "index.json").write_text(json.dumps({"manifests": [index]}))
    given = folder
    if packed:
        given = tmp_path / "image.tar"
        with tarfile.open(given, "w") as tar:
            tar.add(folder, ".")
        members = tarfile.open(given).getnames()  # noqa: SIM115
        assert "./index.json" in members
        with tarfile.open(given, "w") as tar:
            for path in sorted(folder.rglob("*")):
                tar.add(path, str(path.relative_to(folder)), recursive=False)
    unpack_root(given, tree, "arm64")
    assert find_python(tree, "arm64") == (PYTHON, "3.11")
    assert sorted(p.relative_to(tree).as_posix() for p in tree.rglob("*") if p.is_file()) == [
        "opt/a/c",
        PYTHON,
    ]


def test_what_is_no_archive_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"no archive")
    with pytest.raises(RefusedError, match="--rootfs"):
        unpack_root(tmp_path / "a", tmp_path / "tree", "arm64")
    with pytest.raises(UsageError, match="--rootfs"):
        unpack_root(tmp_path / "b", tmp_path / "tree", "arm64")


def wheel(directory: Path, name: str, files: Mapping[str, str]) -> None:
    with zipfile.ZipFile(directory / name, "w") as packed:
        for path, text in files.items():
            packed.writestr(path, text)


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache"


def offline(directory: Path, version: str, broken: bool = False) -> Path:
    """A directory with the wheel of an MNN that says no more than its version."""
    directory.mkdir()
    files = {
        "MNN/__init__.py": f"def version(): return {version!r}\n"
        if not broken
        else "raise ImportError('broken')\n",
        "MNN/nn.py": "",
        "MNN/expr.py": "",
        **{f"{name}/__init__.py": "" for name in ("numpy", "msgspec", "psutil", "ml_dtypes")},
    }
    wheel(directory, f"MNN-{version}-cp311-none-any.whl", files)
    return directory


def test_an_engine_from_wheels_at_hand(tmp_path: Path, cache: Path) -> None:
    given = offline(tmp_path / "given", "9.9.9")
    result = call("target", "add", "host,engine=9.9.9", "--from", given, "--json")
    (made,) = result.document()["made"]
    assert (made["engine"], made["origin"], len(made["made_of"])) == ("9.9.9", "wheels at hand", 1)
    assert [r.engine for _, r in environments()] == ["9.9.9"]
    assert call("target", "add", "host,engine=9.9.9", "--from", given).err == "everything was here already\n"
    listed = call("target", "list", "--json").document()["environments"]
    assert [(e["engine"], e["works"]) for e in listed] == [("9.9.9", True)]
    assert "9.9.9" in call("target", "list").out
    assert call("target", "remove", "host,engine=9.9.9").code == 0
    assert environments() == []
    assert list((cache / "mnnprep" / "targets" / host_machine()).iterdir()) == []


def test_an_engine_that_does_not_import_is_not_left_there(tmp_path: Path, cache: Path) -> None:
    given = offline(tmp_path / "given", "9.9.9", broken=True)
    with pytest.raises(RefusedError, match="importing MNN") as caught:
        command.add(["host,engine=9.9.9"], given=str(given))
    assert "broken" in caught.value.seen
    assert list((cache / "mnnprep" / "targets" / host_machine()).iterdir()) == []


def test_a_wheel_of_another_version_or_none_is_refused(tmp_path: Path, cache: Path) -> None:
    given = offline(tmp_path / "given", "9.9.9")
    with pytest.raises(RefusedError, match="no wheel of MNN"):
        shutil.rmtree(tmp_path / "other", ignore_errors=True)
        (tmp_path / "other").mkdir()
        wheel(tmp_path / "other", "numpy-1.0-py3-none-any.whl", {"numpy/__init__.py": ""})
        command.add(["host,engine=9.9.9"], given=str(tmp_path / "other"))
    (given / "MNN-9.9.9-cp311-none-any.whl").write_bytes(b"no zip")
    with pytest.raises(RefusedError, match="damaged"):
        command.add(["host,engine=9.9.9"], given=str(given))
    assert environments() == []


def test_calls_that_add_nothing_are_wrong(tmp_path: Path, cache: Path) -> None:
    for text in ("host:low", f"host,engine={deps.version('MNN')}", "ssh://board"):
        with pytest.raises(UsageError) as caught:
            command.add([text])
        assert caught.value.next
    with pytest.raises(UsageError, match="--from"):
        command.add(["host,engine=9.9.9"], given=str(tmp_path / "none"))
    with pytest.raises(UsageError, match="no environment"):
        command.remove([OTHER])


def test_without_an_emulator_the_package_is_named(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tools.shutil, "which", lambda _: None)
    with pytest.raises(RefusedError, match="QEMU") as caught:
        command.add([OTHER])
    assert "qemu-user" in caught.value.next
    assert not home().exists()


def test_without_apt_a_root_is_asked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fake_emulator(monkeypatch, tmp_path / "cache")
    adding.remove(Target.parse(OTHER))
    monkeypatch.setenv("PATH", str(tmp_path / "cache" / "bin"))
    with pytest.raises(RefusedError, match="apt-get") as caught:
        command.add([OTHER])
    assert "--rootfs" in caught.value.next
    assert environments() == []


def test_an_emulated_engine_is_imported_there_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fake_emulator(monkeypatch, tmp_path / "cache")
    adding.remove(Target.parse(OTHER))
    machine = {"arm64": AARCH64, "x86_64": X86_64}[OTHER]
    root = archive(tmp_path / "root.tar", {PYTHON: elf(machine)})
    given = offline(tmp_path / "given", "9.9.9")
    made = command.add([f"{OTHER},engine=9.9.9"], rootfs=str(root), given=str(given))
    assert [(r.interpreter, r.engine, r.python) for r in made] == [
        (PYTHON, "", "3.11"),
        ("", "9.9.9", "3.11"),
    ]
    assert sorted(p.name for p in root_of(OTHER).parent.iterdir()) == ["9.9.9", "root"]


def test_another_cpu_of_this_machine_is_emulated(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`phone` on an ARM64 host: two targets run as they are, the CPU without float16 in a root of its own."""
    monkeypatch.setattr(platform, "machine", lambda: "aarch64")
    fake_emulator(monkeypatch, tmp_path / "cache", arch="arm64")
    adding.remove(Target.parse("arm64"))
    old, installed = Target.parse("arm64:low,cpu=cortex-a53"), deps.version("MNN") or ""
    with pytest.raises(Unavailable, match=r"mnnprep target add arm64,cpu=cortex-a53$"):
        worker_of(old)
    root = archive(tmp_path / "root.tar", {PYTHON: elf(AARCH64)})
    given = offline(tmp_path / "given", installed)
    made = command.add(["phone"], rootfs=str(root), given=str(given))
    assert [(r.arch, r.interpreter, r.engine) for r in made] == [
        ("arm64", PYTHON, ""),
        ("arm64", "", installed),
    ]
    assert command.add(["phone"]) == []
    here, there = worker_of(Target.parse("arm64:low")), worker_of(old)
    assert here.interpreter is None
    assert there.interpreter is not None
    assert there.interpreter.command[3:5] == ("-cpu", "cortex-a53")
    with pytest.raises(UsageError, match="runs here as it is"):
        command.add(["arm64:low"])
    assert len(command.remove(["phone"])) == 2


def test_an_engine_for_another_python_is_not_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(platform, "machine", lambda: "aarch64")
    fake_emulator(monkeypatch, tmp_path / "cache", arch="arm64")
    text = "arm64:low,cpu=cortex-a53,engine=9.9.9"
    place = fake_engine("arm64", "9.9.9")
    worker_of(Target.parse(text))
    write_record(place, EnvironmentRecord(arch="arm64", python="3.99", origin="a test", engine="9.9.9"))
    with pytest.raises(Unavailable, match=r"for Python 3\.99, not"):
        worker_of(Target.parse(text))
    with pytest.raises(UsageError, match="for another Python"):
        command.add([text])


def test_the_versions_that_pip_names(monkeypatch: pytest.MonkeyPatch) -> None:
    printed = "MNN (3.10.0)\nAvailable versions: 3.10.0, 3.9.1, 3.2.0b1, 3.2.0\n  INSTALLED: 3.9.1\n"
    asked: list[str] = []
    monkeypatch.setattr(wheels, "call", lambda command, *_, **__: asked.extend(command) or printed)
    assert wheels.known_versions("arm64", "3.11") == ["3.2.0", "3.9.1", "3.10.0"]
    assert "manylinux2014_aarch64" in asked
    assert asked[0] == sys.executable


def test_doctor_shows_environments(cache: Path) -> None:
    fake_engine(host_machine(), "9.9.9")
    found = call("doctor", "--json").document()
    assert [(e["engine"], e["works"]) for e in found["environments"]] == [("9.9.9", True)]
    assert set(found["emulators"]) == {OTHER}
    assert engine_of(host_machine(), "9.9.9").is_dir()
