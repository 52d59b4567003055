"""The bytes of a checkpoint, wherever they are: local files, remote objects, a part of either.

A :class:`File` is read at absolute offsets, by any number of threads; where it lies is a
:class:`mnnprep.weights.places.Place`.
"""

from __future__ import annotations

import io
import os
import stat
import threading
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from mnnprep.errors import RefusedError, UsageError

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer
    from fsspec import AbstractFileSystem

BLOCK = 1 << 12  # remote bytes that a small read brings along
CACHED_BLOCKS = 64
STREAM_BUFFER = 1 << 16


class File:
    """Bytes 0 to ``size``; ``name`` is how messages and manifests call it (relative to the checkpoint)."""

    name: str = ""
    size: int = 0

    def read(self, offset: int, count: int) -> bytes:
        """Exactly *count* bytes.

        Raises:
            RefusedError: the file ends before.
        """
        if offset < 0 or count < 0 or offset + count > self.size:
            raise RefusedError(
                "the checkpoint points outside one of its files: it is truncated or damaged",
                seen=f"{self.name}: bytes {offset} to {offset + count} of {self.size}",
                next="download or copy it again, and compare its size or hash with the original's",
            )
        data = self._read(offset, count) if count else b""
        if len(data) != count:
            raise RefusedError(
                "a file of the checkpoint became shorter while it was read",
                seen=f"{self.name}: {len(data)} of {count} bytes at {offset}",
                next="try again when nothing writes to it",
            )
        return data

    def _read(self, offset: int, count: int) -> bytes:
        raise NotImplementedError

    def read_into(self, offset: int, view: memoryview) -> None:
        """Fill *view*; errors as :meth:`read`."""
        view[:] = self.read(offset, len(view))

    def fileno(self) -> int | None:
        """A descriptor for copying in the kernel; None if there is none."""
        return None

    def identity(self) -> str:
        """Return a text that changes when the file does."""
        return f"{self.name}:{self.size}"

    def changed(self) -> bool:
        """Whether something wrote to it since it was opened; False if that can't be told."""
        return False

    def locate(self, offset: int) -> tuple[File, int]:
        """The file that really holds *offset*, and where in it."""
        return self, offset

    def release(self) -> None:
        """Give back memory; the file can still be read."""

    def stream(self) -> io.BufferedReader:
        """A seekable stream over the whole, for readers that want one."""
        return io.BufferedReader(_Stream(self), STREAM_BUFFER)


class LocalFile(File):
    """A regular file; opened when first read."""

    def __init__(self, path: Path, name: str) -> None:
        self.path = path
        self.name = name
        state = path.stat()
        if not stat.S_ISREG(state.st_mode):  # to open a pipe is to wait for whoever writes to it
            raise RefusedError(
                "this is not a regular file",
                seen=str(path),
                next="give a file, not a directory, pipe, socket or device",
            )
        self.size = state.st_size
        self._identity = _local_identity(name, state)
        self._descriptor = -1
        self._lock = threading.Lock()

    def fileno(self) -> int:
        """Return the descriptor, opened when it is first asked for.

        Raises:
            UsageError: the file can't be opened.
        """
        with self._lock:
            if self._descriptor < 0:
                try:
                    self._descriptor = os.open(self.path, os.O_RDONLY | os.O_CLOEXEC)
                except OSError as error:
                    raise UsageError(
                        "the weights can't be opened",
                        seen=f"{self.path}: {error.strerror}",
                        next="check the permissions of the file",
                    ) from error
            return self._descriptor

    def _read(self, offset: int, count: int) -> bytes:
        parts = []
        while count and (part := os.pread(self.fileno(), count, offset)):
            parts.append(part)
            offset += len(part)
            count -= len(part)
        return parts[0] if len(parts) == 1 else b"".join(parts)

    def read_into(self, offset: int, view: memoryview) -> None:
        """Fill *view* with the bytes from *offset* on.

        Raises:
            RefusedError: the file ends before.
        """
        done = 0
        while done < len(view):
            count = os.preadv(self.fileno(), [view[done:]], offset + done)
            if count == 0:
                self.read(offset + done, len(view) - done)  # says what is wrong
            done += count

    def identity(self) -> str:
        """Return a text that changes when the file does."""
        return self._identity

    def changed(self) -> bool:
        """Whether the file is another than when it was opened."""
        state = os.stat(self.path)
        return self._identity != _local_identity(self.name, state)

    def close(self) -> None:
        """Close the descriptor, if it is open; the next read opens it again."""
        with self._lock:
            if self._descriptor >= 0:
                os.close(self._descriptor)
                self._descriptor = -1


def _local_identity(name: str, state: os.stat_result) -> str:
    return f"{name}:{state.st_size}:{state.st_mtime_ns}:{state.st_ino}"


class RemoteFile(File):
    """An object behind an fsspec filesystem, read by ranges; small reads go through a few cached blocks."""

    def __init__(self, filesystem: AbstractFileSystem, path: str, name: str) -> None:
        self._filesystem = filesystem
        self._path = path
        self.name = name
        info = filesystem.info(path)
        if info.get("size") is None:
            raise RefusedError(
                "the server does not say how large a file is",
                seen=name,
                next="download the checkpoint and give its path",
            )
        self.size = int(info["size"])
        tags = [
            str(info[key])
            for key in ("ETag", "etag", "LastModified", "last_modified", "mtime")
            if info.get(key)
        ]
        self._identity = ":".join([path, str(self.size), *tags])
        self._blocks: OrderedDict[int, bytes] = OrderedDict()
        self._lock = threading.Lock()

    def identity(self) -> str:
        """Return a text that changes when the file does."""
        return self._identity

    def _read(self, offset: int, count: int) -> bytes:
        if count > BLOCK:
            return self._fetch(offset, offset + count)
        data = b""
        while len(data) < count:
            at = offset + len(data)
            block = self._block(at // BLOCK)
            data += block[at % BLOCK :][: count - len(data)]
        return data

    def _block(self, index: int) -> bytes:
        with self._lock:
            if index not in self._blocks:
                self._blocks[index] = self._fetch(index * BLOCK, min(self.size, (index + 1) * BLOCK))
                while len(self._blocks) > CACHED_BLOCKS:
                    self._blocks.popitem(last=False)
            return self._blocks[index]

    def _fetch(self, begin: int, end: int) -> bytes:
        try:
            data = bytes(self._filesystem.cat_file(self._path, start=begin, end=end))
        except Exception as error:  # every filesystem raises errors of its own
            raise RefusedError(
                "a range of a remote file could not be read",
                seen=f"{self.name}, bytes {begin} to {end}: {type(error).__name__}: {error}"[:500],
                next="check the address and the credentials, or download the checkpoint and give its path",
            ) from error
        if len(data) != end - begin:
            raise RefusedError(
                "the server does not serve ranges",
                seen=f"{self.name}: {len(data)} bytes, but {end - begin} were asked for",
                next="download the checkpoint and give its path",
            )
        return data


class Window(File):
    """*size* bytes of *parent* from *base* on; a base that is not known yet is set later."""

    def __init__(self, parent: File, base: int, size: int, name: str = "") -> None:
        self.parent = parent
        self.base = base
        self.size = size
        self.name = name or parent.name

    def _read(self, offset: int, count: int) -> bytes:
        return self.parent.read(self.base + offset, count)

    def read_into(self, offset: int, view: memoryview) -> None:
        """Fill *view* with the bytes from *offset* of the window on."""
        self.parent.read_into(self.base + offset, view)

    def locate(self, offset: int) -> tuple[File, int]:
        """Return the file that holds the byte at *offset*, and its offset there."""
        return self.parent.locate(self.base + offset)


class Lazy(File):
    """Bytes that have to be made (inflated, decoded) in one piece; kept until released."""

    def __init__(self, name: str, size: int, make: Callable[[], bytes]) -> None:
        self.name = name
        self.size = size
        self._make = make
        self._data: bytes | None = None
        self._lock = threading.Lock()

    def _read(self, offset: int, count: int) -> bytes:
        with self._lock:
            if self._data is None:
                self._data = self._make()
            return self._data[offset : offset + count]

    def release(self) -> None:
        """Let go of the bytes; they are made again when they are asked for."""
        self._data = None


class _Stream(io.RawIOBase):
    def __init__(self, file: File) -> None:
        self._file = file
        self._position = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = 0) -> int:
        self._position = max(0, offset + (0, self._position, self._file.size)[whence])
        return self._position

    def readinto(self, buffer: WriteableBuffer) -> int:
        view = memoryview(buffer)
        count = max(0, min(len(view), self._file.size - self._position))
        if count:
            self._file.read_into(self._position, view[:count])
            self._position += count
        return count
