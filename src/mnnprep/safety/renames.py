"""Renames that leave no moment between: nobody sees a target that is missing or half there."""

from __future__ import annotations

import ctypes
import errno
import os
from pathlib import Path

_AT_FDCWD = -100  # <fcntl.h>
_NOREPLACE, _EXCHANGE = 1, 2  # <linux/fs.h>
_CANNOT = (errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP)  # not this file system, not this kernel


def rename_to_new(path: Path, target: Path) -> None:
    """Rename the directory *path* to *target*, where nothing or an empty directory is.

    Raises:
        FileExistsError, or OSError with ENOTEMPTY: something else is there.
    """
    if os.path.lexists(target) or not _renameat2(path, target, _NOREPLACE):
        os.rename(path, target)  # POSIX: onto an empty directory alone


def exchange(path: Path, target: Path, aside: Path) -> None:
    """Have two directories change places.

    In one step where the file system can (Linux: all the usual ones on a local disk).  Elsewhere *target* is
    *aside* for a moment, and :func:`mnnprep.safety.leftovers.put_right` brings it back, after a failure or a
    kill just then.
    """
    if _renameat2(path, target, _EXCHANGE):
        return
    os.rename(target, aside)
    os.rename(path, target)
    os.rename(aside, path)


def _renameat2(path: Path, target: Path, how: int) -> bool:
    """renameat2(2); False if it is not to be had."""
    function = getattr(ctypes.CDLL(None, use_errno=True), "renameat2", None)  # glibc 2.28
    if function is None:
        return False
    if function(_AT_FDCWD, os.fsencode(path), _AT_FDCWD, os.fsencode(target), ctypes.c_uint(how)) == 0:
        return True
    number = ctypes.get_errno()
    if number in _CANNOT:
        return False
    raise OSError(number, os.strerror(number), str(path), None, str(target))
