"""The real kind of a file: read from the file alone, with no framework and no part of it executed."""

from __future__ import annotations

import os
from pathlib import Path

import msgspec

from mnnprep.commands.reading import SECONDS, PathJob, read_aside
from mnnprep.formats.backend import Role
from mnnprep.formats.inspection import Findings
from mnnprep.formats.registry import backend_of, kind_of
from mnnprep.formats.sniff import identify, require_there
from mnnprep.model.request import Limits
from mnnprep.safety.damage import reading
from mnnprep.safety.printable import textual
from mnnprep.workers.step import Step, reader


class Inspection(Findings, frozen=True, kw_only=True):
    """The result of :func:`inspect_file`: the file's content, and its kind.

    ``size`` is in bytes (of all files, for a directory); ``prepared`` tells whether this version prepares the
    kind.
    """

    kind: str
    title: str
    framework: str
    path: str
    size: int
    prepared: bool


def inspect_file(path: str | Path, *, limits: Limits | None = None) -> Inspection:
    """Say what the file or directory at *path* is and holds, without loading it; ``details`` are plain data.

    It is read in a worker, within *limits* (a minute, and three quarters of the free memory).

    Raises:
        UsageError: there is nothing at *path*.
        RefusedError: it is not a model, or a damaged one (see :func:`mnnprep.formats.sniff.identify`), or
            takes more than *limits*.
    """
    require_there(path)
    absolute = Path(os.path.abspath(path))
    found = read_aside(READ, PathJob.of(absolute), absolute, limits or Limits(timeout=SECONDS))
    return msgspec.structs.replace(found, path=str(path))


def read(job: PathJob) -> Inspection:
    """The step of :func:`inspect_file`."""
    return msgspec.convert(textual(msgspec.to_builtins(read_file(Path(job.path)))), Inspection)


READ = Step.of(read, reader(__name__))


def read_file(path: str | Path) -> Inspection:
    """:func:`inspect_file` in this process, without limits; ``details`` hold what the readers gave."""
    path = Path(path)
    kind = kind_of(identify(path))
    with reading(path, kind.title):
        found = kind.inspect(path, kind.name) if kind.inspect else Findings()
        size = _size(path)
    warnings = list(found.warnings)
    if kind.role is Role.WEIGHTS:
        warnings.append(
            "these are weights without a model: give a factory (file.py:callable) and this file with"
            " --weights"
        )
    elif not kind.prepared:
        warnings.append(f"{kind.title}: recognised, and not prepared by this version")
    parts = {name: getattr(found, name) for name in found.__struct_fields__} | {"warnings": tuple(warnings)}
    return Inspection(
        kind=kind.name,
        title=kind.title,
        framework=backend_of(kind.name).framework,
        path=str(path),
        size=size,
        prepared=kind.prepared,
        **parts,
    )


def _size(path: Path) -> int:
    if path.is_dir():
        return sum(file.stat().st_size for file in path.rglob("*") if file.is_file())
    return path.stat().st_size
