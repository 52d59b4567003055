"""The files of a run that last as long as it runs, and are taken away as it ends.

They are its scratch directory, and unfinished work beside a target.

A run that is killed takes nothing away; the next one does.  A lock (``flock``) tells the dead from the
living: it goes with the process that held it, however that ended, and no age has to be guessed.  Names carry
a tag, so that nothing of a user's is taken for ours, and only directories and files of this user that are not
links are touched.

Beside a target NAME there may be, of runs that were killed:

    .NAME.mnnprep-lock              empty but for the pid of who writes NAME; held as long as that runs
    .NAME.mnnprep-XXXXXXXX.new      a directory that was to become NAME, or an old NAME to be deleted
    .NAME.mnnprep-XXXXXXXX.old      what NAME was; while there is no NAME it is put back
    .NAME.mnnprep-XXXXXXXX.tmp      a file that was to become NAME; its writer holds a lock on it
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import hashlib
import os
import re
import shutil
import stat
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from mnnprep.errors import SystemFault, UsageError

TAG = "mnnprep-"
SCRATCH_LOCK = ".lock"
# bytes of a target's name that names beside it repeat; with more they'd be longer than file systems allow
LONGEST_NAME = 200
_RANDOM = "[a-z0-9_]{8}"  # as `tempfile` makes them
_own = threading.local()


def beside(target: Path) -> str:
    """How the names of what stands beside *target* for a while begin."""
    name = target.name
    if len(os.fsencode(name)) > LONGEST_NAME:
        name = hashlib.sha256(os.fsencode(name)).hexdigest()[:32]
    return f".{name}.{TAG}"


def left_beside(target: Path, suffix: str) -> list[Path]:
    """Return the entries of this user beside *target* that a run made for it, with that suffix.

    None if there is no directory.
    """
    pattern = re.compile(re.escape(beside(target)) + _RANDOM + re.escape(suffix))
    if not target.parent.is_dir():
        return []
    return [p for p in _entries(target.parent) if pattern.fullmatch(p.name)]


def _entries(directory: Path) -> Iterator[Path]:
    """The files and directories in *directory* that are this user's and no links."""
    with os.scandir(directory) as entries:
        for entry in entries:
            if TAG in entry.name:
                with contextlib.suppress(FileNotFoundError):
                    state = entry.stat(follow_symlinks=False)
                    if state.st_uid == os.geteuid() and (
                        stat.S_ISDIR(state.st_mode) or stat.S_ISREG(state.st_mode)
                    ):
                        yield Path(entry.path)


@contextmanager
def claimed(target: Path) -> Iterator[None]:
    """Make this thread the one that writes *target*, within the block.

    *target* is an absolute path without links, its directory there.

    What killed runs left beside it is put right first.  A thread that has claimed a target may claim it
    again.

    Raises:
        UsageError: another run has claimed it.
    """
    held: set[Path] = _own.__dict__.setdefault("targets", set())
    if target in held:
        yield
        return
    path = target.parent / f"{beside(target)}lock"
    descriptor, locked = _claim(path, target)
    held.add(target)
    try:
        if locked:
            put_right(target)
        yield
    finally:
        held.discard(target)
        if locked:
            with contextlib.suppress(OSError):
                path.unlink()
        os.close(descriptor)


def _claim(path: Path, target: Path) -> tuple[int, bool]:
    """The lock file, open, and whether it is locked: a file system may have no locks."""
    while True:
        try:
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o644)
        except PermissionError:  # another user's
            descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
        try:
            if not _locked(descriptor):
                pid = os.pread(descriptor, 20, 0).decode("ascii", "replace")
                who = f"process {pid}" if pid.isdigit() else "another process"
                raise UsageError(
                    "another run is writing this target",
                    seen=f"{target}: {who}",
                    next="wait for it, or give another target",
                )
            if _is_at(descriptor, path):
                with contextlib.suppress(OSError):  # another user's, or a full disk
                    os.ftruncate(descriptor, 0)
                    os.pwrite(descriptor, str(os.getpid()).encode(), 0)
                return descriptor, True
        except BaseException as error:
            if isinstance(error, OSError) and error.errno in (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP):
                return descriptor, False
            os.close(descriptor)
            raise
        os.close(descriptor)  # that of a run that ended in between, and took it away


def _locked(descriptor: int, *, wait: bool = False) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
    except BlockingIOError:
        return False
    return True


def _is_at(descriptor: int, path: str | os.PathLike[str]) -> bool:
    """Whether *path* names the open file *descriptor*."""
    try:
        return os.path.samestat(os.fstat(descriptor), os.stat(path, follow_symlinks=False))
    except FileNotFoundError:
        return False


def put_right(target: Path) -> None:
    """Give *target* back what was put aside for a replacement that never came.

    The other leavings are taken away.

    Nobody may be writing *target*.
    """
    for new in left_beside(target, ".new"):
        shutil.rmtree(new, ignore_errors=True)
    for old in left_beside(target, ".old"):
        try:
            os.rename(old, target)  # onto nothing, or an empty directory
        except OSError:  # there is a target: a half-deleted directory must not be called old
            done = old.with_suffix(".new")
            os.rename(old, done)
            shutil.rmtree(done, ignore_errors=True)


@contextmanager
def unfinished(target: Path) -> Iterator[tuple[int, Path]]:
    """Make a fresh file beside *target*, open and locked, and give it with its path.

    It is taken away if it still has that name at the end.

    Those of killed runs are taken away first.
    """
    for left in left_beside(target, ".tmp"):
        with contextlib.suppress(OSError):
            descriptor = os.open(left, os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC)
            try:
                if _locked(descriptor) and _is_at(descriptor, left):
                    left.unlink()
            finally:
                os.close(descriptor)
    while True:
        descriptor, name = tempfile.mkstemp(prefix=beside(target), suffix=".tmp", dir=target.parent)
        try:
            if not _taken(descriptor, Path(name)):
                continue
            yield descriptor, Path(name)
            return
        finally:
            Path(name).unlink(missing_ok=True)
            os.close(descriptor)


def _taken(descriptor: int, path: Path) -> bool:
    """Lock what was just made; False if another run took it for a leaving before it was locked."""
    with contextlib.suppress(OSError):
        _locked(descriptor, wait=True)
    return _is_at(descriptor, path)


class Scratch:
    """A directory of this process's own, for files that are only needed while it runs.

    It lies in the system's (TMPDIR). Use it as a context manager.

    Those of killed runs are taken away first.

    Raises:
        SystemFault: there is no directory that can be written to.
    """

    def __init__(self) -> None:
        try:
            base = Path(tempfile.gettempdir())
        except FileNotFoundError as error:
            what = "there is no directory for temporary files"
            raise SystemFault(
                what, seen=str(error), next="name a directory that can be written to: TMPDIR=DIR"
            ) from error
        _sweep(base)
        while True:
            self.path = Path(tempfile.mkdtemp(prefix=TAG, dir=base))
            with contextlib.suppress(FileNotFoundError):  # another run took it for a leaving
                self._lock = os.open(self.path / SCRATCH_LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
                if _taken(self._lock, self.path / SCRATCH_LOCK):
                    return
                os.close(self._lock)

    def __enter__(self) -> Path:
        return self.path

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Remove the directory and all in it."""
        # Removing may need the one descriptor; a run that takes the directory for a leftover does the same.
        os.close(self._lock)
        _remove(self.path)


def _sweep(base: Path) -> None:
    """Take away the scratch directories in *base* whose process is gone."""
    with contextlib.suppress(OSError):
        for left in _entries(base):
            if re.fullmatch(TAG + _RANDOM, left.name) and left.is_dir():
                with contextlib.suppress(OSError):
                    _take_away(left)


def _take_away(directory: Path) -> None:
    """Remove a scratch directory unless it is in use or is not one.

    A run that was killed at its very start left it empty.
    """
    try:
        lock = os.open(directory / SCRATCH_LOCK, os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC)
    except FileNotFoundError:
        directory.rmdir()
        return
    try:
        if _locked(lock):
            _remove(directory)
    finally:
        os.close(lock)


def _remove(directory: Path) -> None:
    """Remove a scratch directory, its lock last.

    One whose removal was cut short can still be told for what it is.
    """
    with contextlib.suppress(OSError):
        for path in directory.iterdir():
            if path.name == SCRATCH_LOCK:
                continue
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path, ignore_errors=True)
            else:
                path.unlink(missing_ok=True)
        (directory / SCRATCH_LOCK).unlink(missing_ok=True)
        directory.rmdir()
