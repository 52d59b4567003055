"""An engine from its wheels: MNN of one version, and what a worker imports beside it.

pip downloads them from wherever it is set up to; nothing in them is executed here.
"""

from __future__ import annotations

import re
import sys
import zipfile
from pathlib import Path

from mnnprep import deps
from mnnprep.errors import RefusedError
from mnnprep.model.target import version_key
from mnnprep.targets.tools import call, machine_name

BESIDE = ("numpy", "msgspec", "psutil", "ml_dtypes")  # what a worker of mnnprep imports
_OLDEST, _NEWEST = 12, 40  # of the C library's minor version, in the names of platforms: manylinux_2_N
MINUTES = 10
_NEXT = "look at the message; without a network give a directory that holds the wheels: --from DIR"


def download_wheels(version: str, arch: str, python: str, directory: Path) -> None:
    """Put MNN's wheel of *version*, and those beside it, into *directory*.

    They are for *python* (as ``3.11``) on Linux of *arch*. What this Python has is taken in its own version,
    if there is a wheel of that.

    Raises:
        RefusedError: pip is not here, or MNN has no such wheel.
    """
    platform = _platform(arch, python)
    _download([f"MNN=={version}"], platform, directory)
    for package in BESIDE:
        mine = deps.version(package)
        try:
            _download([f"{package}=={mine}" if mine else package], platform, directory)
        except RefusedError:
            if not mine:
                raise
            _download([package], platform, directory)


def known_versions(arch: str, python: str) -> list[str]:
    """MNN's versions that have a wheel for *python* on Linux of *arch*, the oldest first.

    Raises:
        RefusedError: pip is not here, or can't ask.
    """
    command = [*_pip(), "index", "versions", "MNN", *_platform(arch, python)]
    printed = call(command, "asking pip for MNN's versions", next=_NEXT, seconds=60 * MINUTES)
    listed = re.search(r"^Available versions: (.*)$", printed, re.MULTILINE)
    versions = [v.strip() for v in listed[1].split(",")] if listed else []
    return sorted((v for v in versions if version_key(v)), key=version_key)


def unpack_wheels(directory: Path, site: Path) -> str:
    """Unpack the wheels in *directory* into *site*; returns MNN's version.

    Raises:
        RefusedError: one is damaged or has a name that leads elsewhere, or MNN's is not there.
    """
    version = ""
    for wheel in sorted(directory.glob("*.whl")):
        name, found, *_ = wheel.name.split("-")
        if name.lower() == "mnn":
            version = found
        try:
            with zipfile.ZipFile(wheel) as archive:
                archive.extractall(site)
        except (zipfile.BadZipFile, EOFError, NotImplementedError) as error:
            raise RefusedError("a wheel is damaged", seen=f"{wheel.name}: {error}", next=_NEXT) from error
    if not version:
        raise RefusedError("there is no wheel of MNN", seen=str(directory), next=_NEXT)
    return version


def _pip() -> list[str]:
    return [sys.executable, "-m", "pip"]


def _download(requirements: list[str], platform: list[str], directory: Path) -> None:
    command = [*_pip(), "download", "--quiet", "--no-deps", "--dest", str(directory), *platform]
    call(
        [*command, *requirements],
        f"downloading {' '.join(requirements)}",
        next=_NEXT,
        environment={"PIP_DISABLE_PIP_VERSION_CHECK": "1", "PIP_NO_INPUT": "1"},
        seconds=60 * MINUTES,
    )


def _platform(arch: str, python: str) -> list[str]:
    """Pip's options for *python* on Linux of *arch*."""
    machine = machine_name(arch)
    names = [f"manylinux_2_{n}_{machine}" for n in range(_NEWEST, _OLDEST, -1)]
    names += [f"manylinux2014_{machine}", *(["manylinux2010_x86_64"] if arch == "x86_64" else [])]
    options = ["--only-binary=:all:", "--implementation", "cp", "--python-version", python]
    return [*options, *(word for name in names for word in ("--platform", name))]
