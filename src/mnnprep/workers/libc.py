"""The C library, for system calls that Python does not have."""

from __future__ import annotations

import ctypes
import functools
import os


@functools.cache
def _library() -> ctypes.CDLL:
    return ctypes.CDLL(None, use_errno=True)


def syscall(number: int, *arguments: object) -> int:
    """A system call by its number.

    Raises:
        OSError: the call failed.
    """
    return _checked(_library().syscall(ctypes.c_long(number), *arguments))


def prctl(option: int, value: int, pointer: object = None) -> int:
    """``prctl(option, value, pointer, 0, 0)``.

    Raises:
        OSError: the call failed.
    """
    nothing = ctypes.c_ulong(0)
    return _checked(_library().prctl(ctypes.c_int(option), ctypes.c_ulong(value), pointer, nothing, nothing))


def _checked(result: int) -> int:
    if result < 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))
    return result
