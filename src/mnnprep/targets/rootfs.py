"""The root of an environment from the files of a system: a directory, a tar archive, or a container image.

An image is a tar archive as ``docker save`` writes it, or of the OCI layout
(https://github.com/opencontainers/image-spec/blob/main/image-layout.md); its layers are laid over each other,
where ``.wh.NAME`` takes NAME away and ``.wh..wh..opq`` what lower layers have in that directory.
"""

from __future__ import annotations

import os
import posixpath
import re
import shutil
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import IO, TypeVar

import msgspec

from mnnprep.errors import RefusedError, UsageError
from mnnprep.targets.tools import machine_name

T = TypeVar("T")
_WHITEOUT, _OPAQUE = ".wh.", ".wh..wh..opq"
MOST_BYTES = 4 << 30  # of an archive's files
MOST_MEMBERS = 500_000
LARGEST_JSON = 1 << 22
MOST_INDEXES = 3
_GO_NAMES = {"arm64": "arm64", "x86_64": "amd64"}  # of an architecture, in images
_MACHINES = {183: "arm64", 62: "x86_64"}  # e_machine of an ELF file, by elf(5): EM_AARCH64 and EM_X86_64
_NEXT = "give a directory or a tar archive of a system with Python 3.11 or later, or a container image of one"


def unpack_root(given: Path, tree: Path, arch: str) -> None:
    """Copy or unpack the files of *given* into *tree*: no device, and nothing outside of it.

    Of an image for several architectures, those of *arch*.

    Raises:
        UsageError: there is nothing at *given*.
        RefusedError: it is no archive, or one that can't be unpacked.
    """
    if given.is_dir() and not (given / "index.json").is_file():
        _copy(given, tree)
        return
    if not given.exists():
        raise UsageError("--rootfs names nothing that is there", seen=str(given), next=_NEXT)
    try:
        with _Image(given, arch) as image:
            for layer in image.layers():
                _unpack(layer, tree)
    except (tarfile.TarError, EOFError, KeyError, ValueError, IndexError, RecursionError) as error:
        raise RefusedError(
            "--rootfs names a file that could not be read as the files of a system",
            seen=f"{given.name}: {error}",
            next=_NEXT,
        ) from error


def find_python(tree: Path, arch: str) -> tuple[str, str]:
    """The path of a Python from 3.11 on below *tree*, whose programs are of *arch*, and its version.

    Raises:
        RefusedError: there is none, or it is of another architecture.
    """
    found = []
    for place in ("usr/local/bin", "usr/bin", "bin", "opt/python/bin"):
        for path in (tree / place).glob("python3.*"):
            version = re.fullmatch(r"python3\.(\d+)", path.name)
            if version and int(version[1]) >= 11 and _within(path, tree).is_file():
                found.append((int(version[1]), path))
    if not found:
        raise RefusedError(
            "the files of the target hold no Python 3.11 or later", seen=f"none in {tree}", next=_NEXT
        )
    minor, path = max(found, key=lambda pair: pair[0])
    with _within(path, tree).open("rb") as file:
        head = file.read(20)
    machine = int.from_bytes(head[18:20], "little") if head[:4] == b"\x7fELF" else 0
    if _MACHINES.get(machine) != arch:
        raise RefusedError(
            f"the files of the target are of another architecture than {arch}",
            seen=_MACHINES.get(machine, f"ELF machine {machine}"),
            next=f"give those of a system for {machine_name(arch)}",
        )
    return str(path.relative_to(tree)), f"3.{minor}"


def _within(path: Path, tree: Path) -> Path:
    """The file that *path* leads to where *tree* is the root of all links."""
    for _ in range(40):
        if not path.is_symlink():
            return path
        target = os.readlink(path)
        path = (
            tree / target.lstrip("/")
            if target.startswith("/")
            else Path(posixpath.normpath(path.parent / target))
        )
    return path


def _copy(given: Path, tree: Path) -> None:
    def without_devices(folder: str, names: list[str]) -> list[str]:
        kinds = ((name, Path(folder) / name) for name in names)
        return [name for name, p in kinds if not (p.is_symlink() or p.is_dir() or p.is_file())]

    shutil.copytree(given, tree, symlinks=True, ignore=without_devices, dirs_exist_ok=True)


class _Platform(msgspec.Struct, frozen=True):
    architecture: str = ""


class _Descriptor(msgspec.Struct, frozen=True):
    digest: str
    platform: _Platform = _Platform()


class _Manifest(msgspec.Struct, frozen=True):
    """An index, which has ``manifests``, or the manifest of an image, which has ``layers``."""

    manifests: list[_Descriptor] = []
    layers: list[_Descriptor] = []


class _Saved(msgspec.Struct, frozen=True, rename="pascal"):
    """An image in the manifest of ``docker save``."""

    layers: list[str]


class _Image:
    """The layers of an archive or a container image, from the lowest; a plain archive is one layer."""

    def __init__(self, given: Path, arch: str) -> None:
        self._given, self._arch = given, arch
        self._outer = None if given.is_dir() else tarfile.open(given)  # noqa: SIM115

    def __enter__(self) -> _Image:
        return self

    def __exit__(self, *_: object) -> None:
        if self._outer is not None:
            self._outer.close()

    def layers(self) -> Iterator[tarfile.TarFile]:
        names = self._names()
        if names is None:
            assert self._outer is not None
            yield self._outer
            return
        for name in names:
            with self._open(name) as file, tarfile.open(fileobj=file) as layer:
                yield layer

    def _names(self) -> list[str] | None:
        """The files of the layers; None if this is no image."""
        members = set(self._outer.getnames()) if self._outer is not None else set()
        if self._outer is None or "index.json" in members:
            found = self._read("index.json", _Manifest)
            for _ in range(MOST_INDEXES):  # of images, and of the platforms of one
                if found.manifests:
                    found = self._read(self._blob(self._chosen(found.manifests)), _Manifest)
            return [self._blob(layer.digest) for layer in found.layers]
        if "manifest.json" in members:
            return self._read("manifest.json", list[_Saved])[0].layers
        return None

    def _chosen(self, manifests: list[_Descriptor]) -> str:
        """The digest of the manifest for this architecture; the first if none says so."""
        mine = [m for m in manifests if m.platform.architecture == _GO_NAMES[self._arch]]
        return (mine or manifests)[0].digest

    @staticmethod
    def _blob(digest: str) -> str:
        if not re.fullmatch(r"sha256:[0-9a-f]{64}", digest):
            raise ValueError(f"a digest is none: {digest[:100]}")
        return f"blobs/{digest.replace(':', '/')}"

    def _read(self, name: str, type: type[T]) -> T:
        with self._open(name) as file:
            return msgspec.json.decode(file.read(LARGEST_JSON), type=type)

    def _open(self, name: str) -> IO[bytes]:
        if self._outer is None:
            return (self._given / name).open("rb")
        file = self._outer.extractfile(name)
        if file is None:
            raise ValueError(f"{name} is no file")
        return file


def _unpack(layer: tarfile.TarFile, tree: Path) -> None:
    """Unpack *layer* over *tree*: a link leads nowhere else, a device is left out."""
    size = 0
    for number, member in enumerate(layer):
        size += member.size
        if size > MOST_BYTES or number > MOST_MEMBERS:
            raise ValueError(f"it unfolds to more than {MOST_BYTES} bytes or {MOST_MEMBERS} files")
        folder, name = posixpath.split(member.name.rstrip("/"))
        if name == _OPAQUE:
            for entry in _inside(tree, folder).iterdir():
                _remove(entry)
        elif name.startswith(_WHITEOUT):
            _remove(_inside(tree, folder) / name.removeprefix(_WHITEOUT))
        elif member.isdir() or member.isreg() or member.issym() or member.islnk():
            _place(layer, member, tree)


def _place(layer: tarfile.TarFile, member: tarfile.TarInfo, tree: Path) -> None:
    """Write one *member* of *layer* below *tree*."""
    folder, name = posixpath.split(posixpath.normpath(member.name))
    if name in ("", ".", ".."):
        return
    path = _inside(tree, folder) / name
    if member.isdir():
        if not path.is_dir() or path.is_symlink():
            _remove(path)
            path.mkdir()
        return
    _remove(path)
    if member.issym():
        path.symlink_to(member.linkname)
        return
    if member.islnk():
        above, linked = posixpath.split(posixpath.normpath(member.linkname))
        os.link(_inside(tree, above) / linked, path, follow_symlinks=False)
        return
    source = layer.extractfile(member)
    assert source is not None
    with source, path.open("xb") as file:
        shutil.copyfileobj(source, file)
    path.chmod((member.mode & 0o777) | 0o600)


def _inside(tree: Path, folder: str) -> Path:
    """The directory *folder* of *tree*, made if it is not there, its links taken as *tree*'s own.

    Raises:
        ValueError: it leads out of *tree*.
    """
    path = tree
    for part in Path(folder.lstrip("/")).parts:
        if part == "..":
            raise ValueError(f"it has a name that leads out of it: {folder[:100]}")
        path = _within(path / part, tree)
        if not path.resolve().is_relative_to(tree.resolve()):
            raise ValueError(f"it has a link that leads out of it: {folder[:100]}")
        path.mkdir(parents=True, exist_ok=True)
    return path


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
