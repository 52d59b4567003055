"""Where the environments of targets lie, and the record that each has.

$XDG_CACHE_HOME/mnnprep/targets/       (~/.cache without it)
arm64/root       record.json  packages/  tree/     the files of a system with Python
arm64/3.6.1      record.json  wheels/    site/     MNN of that version, and what a worker imports
"""

from __future__ import annotations

import os
from pathlib import Path

import msgspec

from mnnprep.errors import RefusedError
from mnnprep.model.files import canonical_json, sha256
from mnnprep.model.target import version_key

RECORD = "record.json"
ROOT = "root"


class Fetched(msgspec.Struct, frozen=True):
    """A package or wheel that an environment was made of."""

    file: str
    sha256: str
    size: int


class EnvironmentRecord(msgspec.Struct, frozen=True, kw_only=True):
    """What an environment is: a root, or an engine.

    Attributes:
        arch: the architecture of its programs.
        python: the version of the Python that is in it, or that its wheels are for, as ``3.11``.
        origin: where it is from, in words.
        engine: MNN's version; empty: a root.
        interpreter: the path of Python below ``tree``; empty: an engine.
        made_of: the packages or wheels, by name.
    """

    arch: str
    python: str
    origin: str
    engine: str = ""
    interpreter: str = ""
    made_of: list[Fetched] = msgspec.field(default_factory=list)


def home() -> Path:
    """The directory of all environments; it need not be there."""
    base = os.environ.get("XDG_CACHE_HOME", "")
    return Path(base if os.path.isabs(base) else os.path.expanduser("~/.cache")) / "mnnprep" / "targets"


def root_of(arch: str) -> Path:
    """The directory of the root of *arch*."""
    return home() / arch / ROOT


def engine_of(arch: str, version: str) -> Path:
    """The directory of an engine of *arch*."""
    return home() / arch / version


def read_record(directory: Path) -> EnvironmentRecord | None:
    """The record of the environment in *directory*; None if none is there.

    Raises:
        RefusedError: it can't be read.
    """
    path = directory / RECORD
    try:
        return msgspec.json.decode(path.read_bytes(), type=EnvironmentRecord)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise RefusedError(
            "the record of a target's environment could not be read",
            seen=f"{path}: {error}",
            next="make it again: `mnnprep target remove` and `mnnprep target add`",
        ) from error


def write_record(directory: Path, record: EnvironmentRecord) -> None:
    """Write *record*, which makes *directory* an environment."""
    (directory / RECORD).write_bytes(canonical_json(record))


def fetched(path: Path) -> Fetched:
    """What is to be recorded of the file at *path*."""
    return Fetched(path.name, sha256(path), path.stat().st_size)


def environments() -> list[tuple[Path, EnvironmentRecord]]:
    """Every environment there is, with its directory, by architecture and version."""
    found = []
    for directory in sorted(home().glob("*/*"), key=lambda path: (path.parent.name, version_key(path.name))):
        record = read_record(directory) if directory.is_dir() and not directory.name.startswith(".") else None
        if record is not None:
            found.append((directory, record))
    return found
