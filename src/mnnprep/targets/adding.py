"""Making and removing the environments of targets.

Each is made beside its place and appears there only when it is whole and its Python has imported MNN.
"""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

from mnnprep import deps
from mnnprep.errors import RefusedError, UsageError
from mnnprep.model.target import EVERY, Target, host_machine
from mnnprep.safety.leftovers import beside, claimed
from mnnprep.targets.environment import PROBE_IMPORTS, emulated
from mnnprep.targets.packages import download_packages, unpack_packages
from mnnprep.targets.places import (
    EnvironmentRecord,
    engine_of,
    environments,
    fetched,
    read_record,
    root_of,
    write_record,
)
from mnnprep.targets.rootfs import find_python, unpack_root
from mnnprep.targets.tools import call, emulator, machine_name
from mnnprep.targets.wheels import download_wheels, known_versions, unpack_wheels
from mnnprep.text import Progress

_PROBE = (
    "import sys; " + "; ".join(f"import {name}" for name in PROBE_IMPORTS) + "; print('mnnprep', 'ready')"
)
_READY = "mnnprep ready"
_PROBE_SECONDS = 600


def add(
    target: Target,
    *,
    rootfs: Path | None = None,
    given: Path | None = None,
    mirror: str = "",
    tell: Progress = lambda _: None,
) -> list[EnvironmentRecord]:
    """Make what *target* needs and is not there: the root of its architecture, and its engine.

    *rootfs* is a directory, tar archive or container image in place of this distribution's packages,
    *given* a directory with the packages and wheels, so that nothing is downloaded, *mirror* a line of apt's
    sources.
    Returns the records of what was made.

    Raises:
        UsageError: the target needs no environment.
        RefusedError: something can't be had; nothing is left half-made.
    """
    _require_some(target)
    arch = target.machine
    made = []
    foreign = arch != host_machine() or bool(target.cpu)
    if foreign:
        require_emulator(arch)
        if read_record(root_of(arch)) is None:
            made.append(_add_root(arch, rootfs, given, mirror, tell))
        elif rootfs is not None:
            raise UsageError(
                f"there are files of a system for {arch} already",
                seen=str(root_of(arch)),
                next=f"mnnprep target remove {arch}, then add it again",
            )
    root = read_record(root_of(arch)) if foreign else None
    python = root.python if root else f"{sys.version_info.major}.{sys.version_info.minor}"
    versions = [target.engine or installed_engine()]
    if target.engine == EVERY:
        tell("asking pip for MNN's versions")
        versions = known_versions(arch, python)
        if not foreign:
            versions = [version for version in versions if version != deps.version("MNN")]
    for version in versions:
        there = read_record(engine_of(arch, version))
        if there is not None and there.python != python:
            raise UsageError(
                f"MNN {version} for {arch} is here for another Python",
                seen=f"{there.python}, and this needs {python}",
                next=f"mnnprep target remove {arch},engine={version}, then add it again",
            )
        if there is None:
            made.append(_add_engine(version, arch, python, given, root, tell))
    return made


def runs_here(target: Target) -> bool:
    """Whether *target* needs no environment: this machine, as it is, with the MNN that is installed."""
    return target.native and not target.cpu and target.engine in ("", deps.version("MNN"))


def remove(target: Target) -> list[Path]:
    """Remove the environments of *target*: its engine, or all of its architecture; returns where they were.

    Raises:
        UsageError: there is none.
    """
    engine = target.engine if target.engine != EVERY else ""
    found = [
        directory
        for directory, record in environments()
        if record.arch == target.machine and engine in ("", record.engine)
    ]
    if not found:
        raise UsageError(
            "no environment of this target is here",
            seen=str(target),
            next="`mnnprep target list` names those that are",
        )
    for directory in found:
        with claimed(directory):
            aside = Path(tempfile.mkdtemp(prefix=beside(directory), suffix=".new", dir=directory.parent))
            os.rename(directory, aside)
            shutil.rmtree(aside, ignore_errors=True)
    return found


def installed_engine() -> str:
    """The version of MNN that is installed here.

    Raises:
        RefusedError: none is.
    """
    version = deps.version("MNN")
    if not version:
        raise deps.missing("MNN")
    return version


def require_emulator(arch: str) -> None:
    """Require that QEMU for *arch* is installed.

    Raises:
        RefusedError: it is not; the message names its package.
    """
    if not emulator(arch):
        raise RefusedError(
            f"programs for {arch} need QEMU's user-mode emulator",
            seen=f"no qemu-{machine_name(arch)}-static on PATH",
            next="sudo apt-get install qemu-user-static (other distributions: qemu-user)",
        )


def _require_some(target: Target) -> None:
    if target.remote:
        raise UsageError(
            "a machine that ssh reaches needs no environment here",
            seen=str(target),
            next=f"prepare or verify with --target {target}",
        )
    if target.machine not in ("arm64", "x86_64"):
        raise UsageError(
            "MNN has no packages for this machine", seen=target.machine, next="choose arm64 or x86_64"
        )
    if runs_here(target):
        raise UsageError(
            "this target runs here as it is", seen=str(target), next="name another engine: engine=3.2.0"
        )


def _add_root(
    arch: str, rootfs: Path | None, given: Path | None, mirror: str, tell: Progress
) -> EnvironmentRecord:
    def fill(directory: Path) -> EnvironmentRecord:
        tree, packages = directory / "tree", directory / "packages"
        tree.mkdir()
        if rootfs is not None:
            tell(f"unpacking {rootfs.name}")
            unpack_root(rootfs, tree, arch)
            origin = rootfs.name
        else:
            packages.mkdir()
            if given is not None:
                _take(given, packages, "*.deb")
                origin = "packages at hand"
            else:
                with tempfile.TemporaryDirectory(dir=directory) as scratch:
                    origin = download_packages(arch, packages, Path(scratch), mirror, tell)
            tell("unpacking the packages")
            unpack_packages(packages, tree)
        interpreter, python = find_python(tree, arch)
        return EnvironmentRecord(
            arch=arch,
            python=python,
            origin=origin,
            interpreter=interpreter,
            made_of=[fetched(path) for path in sorted(packages.glob("*.deb"))],
        )

    return _made(root_of(arch), fill)


def _add_engine(
    version: str, arch: str, python: str, given: Path | None, root: EnvironmentRecord | None, tell: Progress
) -> EnvironmentRecord:
    def fill(directory: Path) -> EnvironmentRecord:
        wheels, site = directory / "wheels", directory / "site"
        wheels.mkdir()
        site.mkdir()
        if given is not None:
            _take(
                given,
                wheels,
                "*.whl",
                lambda name: not name.lower().startswith("mnn-") or f"-{version}-" in name,
            )
        else:
            tell(f"downloading MNN {version} for {arch}")
            download_wheels(version, arch, python, wheels)
        found = unpack_wheels(wheels, site)
        if found != version:
            raise RefusedError(
                "the wheel of MNN is of another version", seen=found, next=f"give that of MNN {version}"
            )
        tell(f"importing MNN {version} there for the first time")
        _probe(site, root)
        return EnvironmentRecord(
            arch=arch,
            python=python,
            origin="wheels at hand" if given is not None else "wheels by pip",
            engine=version,
            made_of=[fetched(path) for path in sorted(wheels.glob("*.whl"))],
        )

    return _made(engine_of(arch, version), fill)


def _made(place: Path, fill: Callable[[Path], EnvironmentRecord]) -> EnvironmentRecord:
    """The environment that *fill* makes in a directory, which then becomes *place*."""
    place.parent.mkdir(parents=True, exist_ok=True)
    place = Path(os.path.realpath(place.parent)) / place.name
    with claimed(place):
        directory = Path(tempfile.mkdtemp(prefix=beside(place), suffix=".new", dir=place.parent))
        try:
            record = fill(directory)
            write_record(directory, record)
            directory.chmod(0o755)
            os.rename(directory, place)
        finally:
            shutil.rmtree(directory, ignore_errors=True)
    return record


def _take(given: Path, directory: Path, pattern: str, wanted: Callable[[str], bool] = lambda _: True) -> None:
    """Copy the files of *pattern* anywhere below *given* into *directory*.

    Raises:
        UsageError: there is none.
    """
    found = sorted(path for path in given.rglob(pattern) if path.is_file() and wanted(path.name))
    if not found:
        raise UsageError(
            "--from names no directory with the files that are needed",
            seen=f"no {pattern} below {given}",
            next="copy the directory that `mnnprep target list` names on a machine that has the target",
        )
    for path in found:
        shutil.copyfile(path, directory / path.name)


def _probe(site: Path, root: EnvironmentRecord | None) -> None:
    """Import what a worker imports, once: it must work, and leaves the compiled modules behind.

    It is done by the Python of *root*, emulated, or by this one.

    Raises:
        RefusedError: it does not work.
    """
    printed = call(
        [*(emulated(root) if root else [sys.executable]), "-P", "-S", "-c", _PROBE],
        "importing MNN in the new environment",
        next="look at the message; the files of the system may lack a library",
        environment={"PYTHONPATH": str(site)},
        seconds=_PROBE_SECONDS,
    )
    if _READY not in printed:
        raise RefusedError(
            "importing MNN in the new environment ended too early", seen=printed[-200:], next="try it again"
        )
