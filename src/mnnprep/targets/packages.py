"""The root of an environment from the packages of this distribution, which need no root to be unpacked.

apt looks for them with lists and a status of its own, so nothing of this system is read or changed but which
servers it uses and which keys it trusts: what is downloaded is signed.
"""

from __future__ import annotations

import shlex
import sys
from pathlib import Path

from mnnprep.errors import RefusedError
from mnnprep.targets.tools import call
from mnnprep.text import Progress

_DEBIAN_NAMES = {"arm64": "arm64", "x86_64": "amd64"}
_OTHERWISE = "give the files of a system with Python 3.11 or later: --rootfs DIR or --rootfs ARCHIVE"
MINUTES = 10


def download_packages(arch: str, directory: Path, scratch: Path, mirror: str, tell: Progress) -> str:
    """Put the packages of Python for *arch*, and all that they need, into *directory*; returns their origin.

    *mirror* is a line of apt's sources in place of this system's; empty: those of this system.

    Raises:
        RefusedError: this is no system with apt, or a package can't be had.
    """
    options = _options(arch, scratch, mirror)
    tell("reading the lists of packages")
    call(["apt-get", "-qq", *options, "update"], "reading the lists of packages", next=_OTHERWISE)
    wanted = _python(options)
    tell(f"downloading {wanted} and what it needs")
    call(
        [
            "apt-get",
            "-qq",
            *options,
            "install",
            "--yes",
            "--download-only",
            "--no-install-recommends",
            wanted,
            wanted.replace("-minimal", "-stdlib").replace("python", "libpython", 1),
            "libstdc++6",
        ],
        "downloading the packages",
        next=f"look at the message, or {_OTHERWISE}",
        seconds=60 * MINUTES,
    )
    for package in (scratch / "cache" / "archives").glob("*.deb"):
        package.rename(directory / package.name)
    return f"packages of {_distribution()}"


def unpack_packages(directory: Path, tree: Path) -> None:
    """Unpack every package in *directory* into *tree*.

    Raises:
        RefusedError: one can't be unpacked, or there is none.
    """
    packages = sorted(directory.glob("*.deb"))
    if not packages:
        raise RefusedError("there is no package to unpack", seen=str(directory), next=_OTHERWISE)
    for package in packages:
        call(["dpkg-deb", "-x", str(package), str(tree)], f"unpacking {package.name}", next=_OTHERWISE)
    # Since the merged /usr these are links that no package of ours holds.
    for name in ("lib", "lib64", "bin", "sbin"):
        if not (tree / name).exists() and (tree / "usr" / name).exists():
            (tree / name).symlink_to(f"usr/{name}")


def _options(arch: str, scratch: Path, mirror: str) -> list[str]:
    """Apt's options: its own lists, cache and status below *scratch*, and *arch* alone."""
    for name in ("lists/partial", "cache/archives/partial"):
        (scratch / name).mkdir(parents=True)
    (scratch / "status").touch()
    values = {
        "APT::Architecture": _DEBIAN_NAMES[arch],
        "APT::Architectures": _DEBIAN_NAMES[arch],
        "APT::Sandbox::User": "",
        "Dir::State::lists": str(scratch / "lists"),
        "Dir::State::status": str(scratch / "status"),
        "Dir::State::extended_states": str(scratch / "extended_states"),
        "Dir::Cache": str(scratch / "cache"),
        "Debug::NoLocking": "1",
    }
    if mirror:
        (scratch / "sources.list").write_text(mirror + "\n")
        values |= {"Dir::Etc::sourcelist": str(scratch / "sources.list"), "Dir::Etc::sourceparts": "-"}
    return [f"-o{name}={value}" for name, value in values.items()]


def _python(options: list[str]) -> str:
    """The package of Python: of this one's version if there is one, else the newest from 3.11 on.

    Raises:
        RefusedError: there is none.
    """
    listed = call(
        ["apt-cache", *options, "pkgnames", "python3."], "looking for Python's package", next=_OTHERWISE
    )
    minors = sorted(
        int(name.removeprefix("python3.").removesuffix("-minimal"))
        for name in listed.split()
        if name.endswith("-minimal") and name.removeprefix("python3.").removesuffix("-minimal").isdigit()
    )
    known = [minor for minor in minors if minor >= 11]
    if not known:
        raise RefusedError(
            "the distribution has no package of Python 3.11 or later for this target",
            seen=", ".join(f"3.{minor}" for minor in minors) or "none",
            next=_OTHERWISE,
        )
    mine = sys.version_info.minor
    return f"python3.{mine if mine in known else known[-1]}-minimal"


def _distribution() -> str:
    """This distribution's name and version, by os-release(5)."""
    for place in ("/etc/os-release", "/usr/lib/os-release"):
        if Path(place).is_file():
            pairs = dict(line.split("=", 1) for line in Path(place).read_text().splitlines() if "=" in line)
            name = shlex.split(pairs.get("ID", ""))[:1] + shlex.split(pairs.get("VERSION_ID", ""))[:1]
            return " ".join(name)
    return "this distribution"
