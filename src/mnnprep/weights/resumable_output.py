"""The unfinished output.

It is ``OUT.part`` with a journal beside it, so that a run that was ended goes on from its place.

The journal says which plan the part belongs to and how many of its first bytes are on the disk.  The final
name appears by a rename, when everything is written and synced.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import json
import os
from pathlib import Path

from mnnprep.errors import SystemFault, UsageError

LONGEST_SUFFIX = ".manifest.json.part"  # of what stands beside the output
SMALLEST_STEP, LARGEST_STEP = 16 << 20, 256 << 20
FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


class Part:
    """The part of *target* for the plan with the digest *plan*, ``size`` bytes when whole.

    ``start`` is the number of bytes that an earlier run left, synced.  Raises UsageError when another process
    writes it, SystemFault when the disk has too little room.
    """

    def __init__(self, target: Path, plan: str, size: int) -> None:
        self.target = target
        self.path = target.with_name(f"{target.name}.part")
        self._journal = target.with_name(f"{target.name}.part.json")
        self._plan = plan
        self._size = size
        fresh = not self.path.exists()
        try:
            self.descriptor = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
        except OSError as error:
            raise UsageError(
                "the output can't be written",
                seen=f"{self.path}: {error.strerror}",
                next="give another directory",
            ) from error
        try:
            fcntl.flock(self.descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            self.start = self._left()
            self._reserve()
        except BlockingIOError as error:
            os.close(self.descriptor)
            raise UsageError(
                "another run is writing this output",
                seen=str(self.path),
                next="wait for it, or give another output",
            ) from error
        except BaseException:
            os.close(self.descriptor)
            if fresh:
                self.path.unlink(missing_ok=True)
            raise

    @property
    def step(self) -> int:
        """The bytes between two notes in the journal."""
        return min(LARGEST_STEP, max(SMALLEST_STEP, self._size // 16))

    def _left(self) -> int:
        try:
            journal = json.loads(self._journal.read_bytes())
            start = int(journal["synced"]) if journal["plan"] == self._plan else 0
        except (OSError, ValueError, KeyError, TypeError):
            start = 0
        return start if 0 <= start <= min(self._size, os.fstat(self.descriptor).st_size) else 0

    def _reserve(self) -> None:
        """Say no before the first byte when the disk is too small; then reserve the whole."""
        state = os.fstat(self.descriptor)
        if self.start == 0:
            os.ftruncate(self.descriptor, 0)
            self._journal.unlink(missing_ok=True)
        held = state.st_blocks * 512 if self.start else 0
        disk = os.fstatvfs(self.descriptor)
        free = disk.f_bavail * disk.f_frsize
        if self._size - held > free:
            raise disk_full(self.target, self._size - held, free)
        with translated(self.target):
            try:
                os.posix_fallocate(self.descriptor, 0, max(1, self._size))
            except OSError as error:
                if error.errno in FULL:
                    os.ftruncate(self.descriptor, self.start)
                    raise
            os.ftruncate(self.descriptor, self._size)

    def sync(self, written: int) -> None:
        """The first *written* bytes are written: put them on the disk and note it."""
        os.fdatasync(self.descriptor)
        fresh = self._journal.with_name(f"{self._journal.name}.new")
        write_synced(fresh, json.dumps({"plan": self._plan, "synced": written}).encode())
        os.replace(fresh, self._journal)

    def finish(self, manifest: bytes) -> None:
        """Give the whole, synced file its name, and then its manifest.

        Whatever ends this, no manifest is alone or another file's.
        """
        os.fdatasync(self.descriptor)
        book = manifest_path(self.target)
        write_synced(_unnamed(book), manifest)
        book.unlink(missing_ok=True)
        sync_directory(self.target.parent)
        os.replace(self.path, self.target)
        sync_directory(self.target.parent)
        os.replace(_unnamed(book), book)
        sync_directory(self.target.parent)
        self._journal.unlink(missing_ok=True)

    def abandon(self, resumable: bool) -> None:
        """After a failure: what can't be gone on with is taken away."""
        if not resumable or not self._journal.exists():
            for left in (self.path, self._journal, _unnamed(manifest_path(self.target))):
                left.unlink(missing_ok=True)

    def close(self) -> None:
        """Close the output's descriptor; an error of that is not told."""
        with contextlib.suppress(OSError):
            os.close(self.descriptor)


def manifest_path(target: Path) -> Path:
    """Return the path of an output's manifest."""
    return target.with_name(f"{target.name}.manifest.json")


def _unnamed(book: Path) -> Path:
    return book.with_name(f"{book.name}.part")


def finish_manifest(target: Path) -> None:
    """Give the manifest its name if a run was ended after it had given the file its own."""
    book = manifest_path(target)
    if (
        _unnamed(book).is_file()
        and target.is_file()
        and not book.exists()
        and not target.with_name(f"{target.name}.part").exists()
    ):
        with contextlib.suppress(OSError):  # a directory that can't be written to: the caller says so
            os.replace(_unnamed(book), book)
            sync_directory(target.parent)


def write_synced(path: Path, data: bytes) -> None:
    """Write a small file and bring it to the disk."""
    with path.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


def sync_directory(path: Path) -> None:
    """Bring the names in a directory to the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def disk_full(target: Path, needed: int, free: int) -> SystemFault:
    """Return the fault of a disk with *free* bytes for an output of *needed*."""
    return SystemFault(
        "there is not enough room for the output",
        seen=f"{needed} bytes are needed in {target.parent}, {free} are free",
        next="free some, or give an output on another disk",
    )


class translated(contextlib.AbstractContextManager[None]):
    """Within, a full disk becomes a SystemFault; what was synced can be resumed."""

    def __init__(self, target: Path) -> None:
        self._target = target

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if isinstance(error, OSError) and error.errno in FULL:
            raise SystemFault(
                "the disk became full while the output was written",
                seen=f"{self._target}: {error.strerror}",
                next="free some room and type the same command again: it goes on where it was",
            ) from error
