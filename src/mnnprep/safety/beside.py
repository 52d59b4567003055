"""Files that a model refers to by name: they lie with it, and are files."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

from mnnprep.errors import RefusedError


def require_beside(model: Path, files: Iterable[Path]) -> None:
    """Refuse each of *files* that is not with *model*, or is not a regular file.

    One that is not there is left to whoever reads it.

    With a model is what lies below its directory, and what lies below the directory of the file that it is a
    link to: a cache keeps all files of a model in one directory, and a directory of links to them.

    Raises:
        RefusedError: a link leads elsewhere, so that bytes which nobody gave would end in what is written; or
        a pipe, a socket
            or a device, which to open may take for ever.
    """
    roots = {os.path.realpath(model.parent), os.path.dirname(os.path.realpath(model))}
    for file in files:
        if not file.exists():
            continue
        if not (file.is_file() or file.is_dir()):
            raise RefusedError(
                "a file of the model is a pipe, a socket or a device",
                seen=file.name,
                next="download or copy the model again",
            )
        real = os.path.realpath(file)
        if not any(os.path.commonpath((root, real)) == root for root in roots):
            raise RefusedError(
                "a file of the model is a link that leads out of its directory",
                seen=f"{file.name} -> {real}",
                next="if it belongs to the model, replace the link by the file itself",
            )
