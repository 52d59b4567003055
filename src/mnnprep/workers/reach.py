"""The confinement of a step, from the job that it is given."""

from __future__ import annotations

import functools
import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Annotated, Any, get_args, get_origin

import msgspec

from mnnprep.errors import InternalError
from mnnprep.model.reach import REACH
from mnnprep.workers.confine import Confinement

MOST_LINKS = 100_000  # files of a directory that are looked at for links


def confinement_of(
    job: msgspec.Struct, *, scratch: Path, directory: Path, reads: Iterable[str] = (), stays: bool = False
) -> Confinement | None:
    """Return the reach of a step that is given *job*, in the run's *scratch*.

    It writes in *directory*, its own, and to what the job says.

    None, no confinement, if the job is to run the user's code (a part of it says ``runs_own_code``).
    *reads* are what every step of the run may read.  A process that *stays*, to be forked for other steps, is
    confined to what all of them may reach.

    Raises:
        InternalError: a job that is to write outside the scratch.
    """
    parts = list(parts_of(job))
    if any(getattr(part, "runs_own_code", False) for part in parts):
        return None
    named: dict[str, list[str]] = {"read": [], "linked": [], "write": [], "start": []}
    for part in parts:
        for field, kind in _kinds(type(part)):
            named[kind] += [text for text in _texts(getattr(part, field)) if text]
    write = [path if os.path.isdir(path) else os.path.dirname(path) for path in named["write"]]
    for path in write:
        if not Path(path).is_relative_to(scratch):
            raise InternalError("a step was to write outside the scratch", seen=path)
    read = [
        *reads,
        *named["read"],
        *named["linked"],
        *(at for path in named["linked"] for at in _linked(path)),
    ]
    return Confinement(
        read=tuple(
            dict.fromkeys(
                [
                    str(scratch),
                    *read,
                    *(at for path in read for at in _hub_blobs(path)),
                    *(["/proc"] if stays else []),
                ]
            )
        ),
        write=(str(scratch),) if stays else tuple(dict.fromkeys([str(directory), *write])),
        execute=bool(named["start"]),
    )


def parts_of(value: Any) -> Iterator[msgspec.Struct]:
    """Every struct in *value*, itself included."""
    if isinstance(value, msgspec.Struct):
        yield value
        for name in value.__struct_fields__:
            yield from parts_of(getattr(value, name))
    elif isinstance(value, dict):
        for item in value.values():
            yield from parts_of(item)
    elif isinstance(value, (list, tuple)):
        for item in value:
            yield from parts_of(item)


@functools.cache
def _kinds(struct: type[msgspec.Struct]) -> tuple[tuple[str, str], ...]:
    """The fields of *struct* that name what is reached, each with how."""
    found = ((field.name, _kind(field.type)) for field in msgspec.structs.fields(struct))
    return tuple((name, kind) for name, kind in found if kind)


def _kind(annotation: Any) -> str:
    """How what has this *annotation* is reached; empty if it names nothing."""
    if get_origin(annotation) is Annotated:
        return next(
            (
                str(m.extra[REACH])
                for m in get_args(annotation)[1:]
                if isinstance(m, msgspec.Meta) and m.extra
            ),
            "",
        )
    return next((kind for argument in get_args(annotation) if (kind := _kind(argument))), "")


def _texts(value: Any) -> list[str]:
    """The texts of a field: one, or a list or the values of a dictionary."""
    if isinstance(value, str):
        return [value]
    return [str(item) for item in (value.values() if isinstance(value, dict) else value or ())]


def _linked(path: str) -> Iterator[str]:
    """Return the targets of the links below the directory *path*."""
    left = MOST_LINKS
    for folder, _, names in os.walk(path):
        for name in names[:left]:
            file = os.path.join(folder, name)
            if os.path.islink(file):
                yield os.path.realpath(file)
        left -= len(names)
        if left <= 0:
            return


def _hub_blobs(path: str) -> Iterator[str]:
    """Return the directory that holds the files of a Hugging Face snapshot.

    ``snapshots/COMMIT/...`` links to ``blobs`` beside it.
    """
    parts = Path(path).parts
    if "snapshots" in parts:
        blobs = Path(*parts[: parts.index("snapshots")], "blobs")
        if blobs.is_dir():
            yield str(blobs)
