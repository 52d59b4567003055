"""Landlock: the kernel keeps this process to the files it was given.

The calls are made directly, for no C library has them.

Numbers and layouts are those of <linux/landlock.h>; what each version of the interface ("ABI") adds is in
https://docs.kernel.org/userspace-api/landlock.html.  A right that an older kernel does not know is left out
there.
"""

from __future__ import annotations

import ctypes
import errno
import os
import stat
import sys
from collections.abc import Iterable

from mnnprep.workers.libc import syscall

# The same numbers on every architecture.
_CREATE_RULESET, _ADD_RULE, _RESTRICT_SELF = 444, 445, 446
_CREATE_RULESET_VERSION = 1  # flag: give the ABI
_RULE_PATH_BENEATH = 1

EXECUTE, WRITE_FILE, READ_FILE, READ_DIR = 1 << 0, 1 << 1, 1 << 2, 1 << 3
_CHANGE_TREE = (
    0b1_1111_1111 << 4
)  # remove a directory or file; make a device, directory, file, socket, pipe or link
_REFER, _TRUNCATE, _IOCTL_DEVICE = 1 << 13, 1 << 14, 1 << 15  # since ABI 2, 3 and 5
_NET_TCP = 0b11  # bind and connect, since ABI 4
_SCOPED = 0b11  # abstract unix sockets and signals, since ABI 6

# The path leads to nothing, or to nothing that this user may reach.
_NOWHERE = (errno.ENOENT, errno.ENOTDIR, errno.EACCES, errno.EPERM, errno.ELOOP, errno.ENAMETOOLONG)
READ = READ_FILE | READ_DIR
WRITE = READ | WRITE_FILE | _CHANGE_TREE | _REFER | _TRUNCATE
DEVICE = READ_FILE | WRITE_FILE | _TRUNCATE | _IOCTL_DEVICE
_OF_FILES = (
    EXECUTE | READ_FILE | WRITE_FILE | _TRUNCATE | _IOCTL_DEVICE
)  # a rule on a file takes no right of directories


class _Ruleset(ctypes.Structure):
    _fields_ = (("access_fs", ctypes.c_uint64), ("access_net", ctypes.c_uint64), ("scoped", ctypes.c_uint64))


class _PathBeneath(ctypes.Structure):
    _layout_ = "ms"
    _pack_ = 1
    _fields_ = (("access", ctypes.c_uint64), ("parent", ctypes.c_int32))


def abi() -> int:
    """The version of Landlock that this kernel has, from 1 on.

    Raises:
        OSError: the kernel has none, or has it switched off.
    """
    if sys.platform != "linux":
        raise OSError(f"{sys.platform} has no Landlock")
    return syscall(_CREATE_RULESET, None, ctypes.c_size_t(0), ctypes.c_uint32(_CREATE_RULESET_VERSION))


def restrict(version: int, rules: Iterable[tuple[str, int]], *, network: bool) -> None:
    """Keep the calling thread, and all that it starts, to *rules*.

    They are paths, with the rights below each. There is no way back.

    A path that leads to nothing grants nothing. Everything a right speaks of and no rule grants is refused
    with EACCES. Without *network* neither TCP (since ABI 4) nor abstract unix sockets of others are reached;
    signals never are (both since ABI 6). ``no_new_privs`` must be set.

    Raises:
        OSError: the call failed.
    """
    handled = _known(version, EXECUTE | WRITE | _IOCTL_DEVICE)
    scoped = 0b10 if network else _SCOPED
    attributes = _Ruleset(handled, 0 if network or version < 4 else _NET_TCP, scoped if version >= 6 else 0)
    size = 24 if version >= 6 else 16 if version >= 4 else 8
    ruleset = syscall(_CREATE_RULESET, ctypes.byref(attributes), ctypes.c_size_t(size), ctypes.c_uint32(0))
    try:
        for path, rights in rules:
            _grant(ruleset, path, rights & handled)
        syscall(_RESTRICT_SELF, ctypes.c_int(ruleset), ctypes.c_uint32(0))
    finally:
        os.close(ruleset)


def _known(version: int, rights: int) -> int:
    """Those of *rights* that the ABI *version* has."""
    for since, right in ((2, _REFER), (3, _TRUNCATE), (5, _IOCTL_DEVICE)):
        if version < since:
            rights &= ~right
    return rights


def _grant(ruleset: int, path: str, rights: int) -> None:
    try:
        place = os.open(path, os.O_PATH | os.O_CLOEXEC)
    except ValueError:  # a null byte
        return
    except OSError as error:
        if error.errno in _NOWHERE:
            return
        raise
    try:
        if not stat.S_ISDIR(os.fstat(place).st_mode):
            rights &= _OF_FILES
        rule = _PathBeneath(rights, place)
        syscall(
            _ADD_RULE,
            ctypes.c_int(ruleset),
            ctypes.c_int(_RULE_PATH_BENEATH),
            ctypes.byref(rule),
            ctypes.c_uint32(0),
        )
    finally:
        os.close(place)
