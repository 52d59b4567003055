"""The unfinished output: ``OUT.part`` with a journal beside it, so that a run that was ended goes on where it was.

The journal says which plan the part belongs to and how many of its first bytes are on the disk.  The final name
appears by a rename, when everything is written and synced.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import json
import os
from pathlib import Path

from mnnprep.core.files import atomic_write
from mnnprep.errors import RefusedError, UsageError

SMALLEST_STEP, LARGEST_STEP = 16 << 20, 256 << 20
FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


class Part:
    """The part of *target* for the plan with the digest *plan*, ``size`` bytes when whole.

    ``start`` is the number of bytes that an earlier run left, synced.  Raises UsageError when another process
    writes it, RefusedError when the disk has too little room.
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
            raise UsageError("the output can't be written", seen=f"{self.path}: {error.strerror}", next="give another directory") from error
        try:
            fcntl.flock(self.descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            self.start = self._left()
            self._reserve()
        except BlockingIOError as error:
            os.close(self.descriptor)
            raise UsageError("another run is writing this output", seen=str(self.path), next="wait for it, or give another output") from error
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
        with atomic_write(self._journal) as file:
            file.write(json.dumps({"plan": self._plan, "synced": written}).encode())

    def finish(self) -> None:
        """Give the whole, synced file its name."""
        os.fdatasync(self.descriptor)
        os.replace(self.path, self.target)
        directory = os.open(self.target.parent, os.O_RDONLY)
        try:
            os.fsync(directory)
        finally:
            os.close(directory)
        self._journal.unlink(missing_ok=True)

    def abandon(self, resumable: bool) -> None:
        """After a failure: what can't be gone on with is taken away."""
        if not resumable or not self._journal.exists():
            self.path.unlink(missing_ok=True)
            self._journal.unlink(missing_ok=True)

    def close(self) -> None:
        with contextlib.suppress(OSError):
            os.close(self.descriptor)


def disk_full(target: Path, needed: int, free: int) -> RefusedError:
    return RefusedError(
        "there is not enough room for the output", seen=f"{needed} bytes are needed in {target.parent}, {free} are free",
        next="free some, or give an output on another disk",
    )  # fmt: skip


class translated(contextlib.AbstractContextManager[None]):
    """Within, a full disk becomes a RefusedError; what was synced can be resumed."""

    def __init__(self, target: Path) -> None:
        self._target = target

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if isinstance(error, OSError) and error.errno in FULL:
            raise RefusedError(
                "the disk became full while the output was written", seen=f"{self._target}: {error.strerror}",
                next="free some room and type the same command again: it goes on where it was",
            ) from error  # fmt: skip
