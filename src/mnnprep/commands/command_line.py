"""The command line that asks for what a request does, for the record.

Every option that decides something, no directory.
"""

from __future__ import annotations

from pathlib import Path

from mnnprep.formats.backend import Role
from mnnprep.formats.registry import kind_of
from mnnprep.model.flags import words_of
from mnnprep.model.messages import Source
from mnnprep.model.options import PREPARE
from mnnprep.model.request import Request
from mnnprep.safety.printable import as_text


def source_name(source: Source) -> str:
    """Return the name that a reader knows the source by.

    A file's or directory's base name, ``file.py:callable`` or ``package.module:callable``.
    """
    if kind_of(source.kind).role is Role.LIVE:
        return ""
    place, _, name = source.path.rpartition(":")
    if kind_of(source.kind).role is not Role.FACTORY:
        return as_text(Path(source.path).name)
    return f"{as_text(Path(place).name) if place.endswith('.py') else place}:{name}"


def command_line(request: Request, source: Source) -> list[str]:
    """Return the arguments of ``mnnprep`` for *request*, without those that say what to write to.

    Empty for a live module.

    Limits of time are left out: they decide whether there is a result, not which.
    """
    if kind_of(source.kind).role is Role.LIVE:
        return []
    own = (
        as_text(Path(request.source).name)
        if kind_of(source.kind).role is not Role.FACTORY
        else source_name(source)
    )
    return ["prepare", own, *words_of(request, PREPARE)]
