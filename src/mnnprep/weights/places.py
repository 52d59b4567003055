"""The place of a checkpoint: paths and fsspec URLs that can be joined, listed and opened.

Every file is opened once a :class:`Files`, so that two tensors with the same bytes are recognized by
``(file, offset)``.
"""

from __future__ import annotations

import contextlib
import os
import resource
from pathlib import Path
from typing import TYPE_CHECKING

from mnnprep import deps
from mnnprep.errors import RefusedError
from mnnprep.weights.files import File, LocalFile, RemoteFile

if TYPE_CHECKING:
    from fsspec import AbstractFileSystem


class Files:
    """The files of one checkpoint, each opened once. Use as a context manager."""

    def __init__(self) -> None:
        self._opened: dict[str, File] = {}
        self._systems: dict[str, AbstractFileSystem] = {}
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        with contextlib.suppress(ValueError, OSError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard) if soft < hard else (soft, hard))

    def __enter__(self) -> Files:
        return self

    def __exit__(self, *_: object) -> None:
        for file in self._opened.values():
            if isinstance(file, LocalFile):
                file.close()

    def at(self, target: str | os.PathLike[str]) -> Place:
        """The place that a path or URL names."""
        text = os.fspath(target)
        if "://" not in text:
            return Place(self, None, str(Path(text)))
        scheme, _, rest = text.partition("://")
        if scheme == "file":
            return Place(self, None, str(Path(rest)))
        deps.require("fsspec")
        import fsspec

        try:
            system, path = fsspec.core.url_to_fs(text)
        except Exception as error:  # an unknown scheme, or the package of a known one is not installed
            raise RefusedError(
                "this kind of address can't be read here",
                seen=f"{scheme}://: {error}",
                next="pip install 'mnnprep[remote]' (for gs:// also gcsfs)",
            ) from error
        return Place(self, self._systems.setdefault(scheme, system), path.rstrip("/"))

    def opened(self) -> list[File]:
        """Every file that was opened so far."""
        return list(self._opened.values())

    def open(self, place: Place, name: str) -> File:
        """Return the file at *place*, opened once; errors call it *name*."""
        if place.path not in self._opened:
            system = place.system
            self._opened[place.path] = (
                LocalFile(Path(place.path), name) if system is None else RemoteFile(system, place.path, name)
            )
        return self._opened[place.path]


class Place:
    """A path, local (``system`` is None) or in an fsspec filesystem."""

    def __init__(self, files: Files, system: AbstractFileSystem, path: str, shown: str = "") -> None:
        self.files = files
        self.system = system
        self.path = path
        self.name = path.rstrip("/").rpartition("/")[2]
        self._shown = shown

    def __str__(self) -> str:
        return self.path

    def join(self, name: str) -> Place:
        """A file or directory inside; *name* is relative, with slashes."""
        shown = f"{self._shown}/{name}" if self._shown else name
        return Place(self.files, self.system, f"{self.path}/{name}", shown)

    def beside(self, name: str) -> Place:
        """A file in the same directory."""
        head, slash, _ = self.path.rpartition("/")
        return Place(self.files, self.system, f"{head}{slash}{name}", name)

    def parent(self) -> Place:
        """The directory that holds the place."""
        return Place(
            self.files,
            self.system,
            self.path.rpartition("/")[0] or ("/" if self.path.startswith("/") else "."),
        )

    @property
    def lists(self) -> bool:
        """Whether directories can be told from files and listed here; HTTP knows only files."""
        return self.system is None or not {"http", "https"} & set(_protocols(self.system))

    def exists(self) -> bool:
        """Whether something is there."""
        return os.path.exists(self.path) if self.system is None else bool(self._kind())

    def is_dir(self) -> bool:
        """Whether it is a directory; never on a system that lists none."""
        return os.path.isdir(self.path) if self.system is None else self.lists and self._kind() == "directory"

    def is_file(self) -> bool:
        """Whether it is a file."""
        return os.path.isfile(self.path) if self.system is None else self._kind() == "file"

    def _kind(self) -> str:
        """``file`` or ``directory``; empty if the server has no such thing, or can't say.

        Asks for no content.
        """
        try:
            return str(self.system.info(self.path).get("type", "file"))
        except Exception:  # every filesystem raises errors of its own
            return ""

    def list(self) -> list[str]:
        """The names directly inside, sorted; empty if the place can't be listed."""
        if self.system is None:
            return sorted(os.listdir(self.path))
        if not self.lists:
            return []
        try:
            return sorted(
                str(item).rstrip("/").rpartition("/")[2] for item in self.system.ls(self.path, detail=False)
            )
        except Exception:  # not every server lists
            return []

    def open(self) -> File:
        """Return the file, opened once for all who ask."""
        return self.files.open(self, self._shown or self.name)

    def read(self, limit: int) -> bytes:
        """All bytes of a small file.

        Raises:
            RefusedError: the file is larger than *limit*.
        """
        file = self.open()
        if file.size > limit:
            raise RefusedError(
                f"{file.name} is larger than a valid one can be",
                seen=f"{file.size} bytes",
                next="give a checkpoint",
            )
        return file.read(0, file.size)


def _protocols(system: AbstractFileSystem) -> tuple[str, ...]:
    return (system.protocol,) if isinstance(system.protocol, str) else tuple(system.protocol)
