"""Output of native code, caught at the file-descriptor level: MNN writes its reasons to stdout from C++."""

from __future__ import annotations

import ctypes
import os
import re
import stat
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass

from mnnprep.safety.error_text import without_paths

LAST_LINES = 12
_CLOCK = re.compile(r"^\[\d\d:\d\d:\d\d\] (:\d+: )?", re.MULTILINE)  # "[14:27:18] :220: "
_LINE_BUFFERED = 1  # _IOLBF of <stdio.h>


@dataclass
class Printed:
    """The output of a :func:`captured` block; empty until the block is left."""

    text: str = ""


@contextmanager
def captured() -> Iterator[Printed]:
    """Collect what the block writes to stdout and stderr, by whatever code.

    In a worker both go to its log file already: they stay there, so that a crash inside the block
    still shows them, and are read back.  Elsewhere they go to a temporary file instead.
    """
    printed = Printed()
    _flush()
    _write_lines_at_once()
    log = _own_log()
    if log is not None:
        start = os.lseek(log, 0, os.SEEK_END)
        try:
            yield printed
        finally:
            _flush()
            printed.text = _read_from(log, start)
            os.close(log)
        return
    saved = os.dup(1), os.dup(2)
    with tempfile.TemporaryFile() as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
        try:
            yield printed
        finally:
            _flush()
            for number, copy in zip((1, 2), saved, strict=True):
                os.dup2(copy, number)
                os.close(copy)
            printed.text = _read_from(file.fileno(), 0)


def last_lines(text: str) -> str:
    """Return the last LAST_LINES lines of *text*."""
    return "\n".join(text.splitlines()[-LAST_LINES:])


def without_place_and_time(text: str) -> str:
    """Return *text* without the clock that MNN puts before a line and without directories.

    It is the same on every machine.
    """
    return _CLOCK.sub("", without_paths(text))


def _own_log() -> int | None:
    """A descriptor to read the file from that both stdout and stderr append to, if there is one."""
    out, err = os.fstat(1), os.fstat(2)
    if stat.S_ISREG(out.st_mode) and os.path.samestat(out, err):
        with suppress(OSError):
            return os.open("/dev/fd/1", os.O_RDONLY)
    return None


def _read_from(descriptor: int, start: int) -> str:
    os.lseek(descriptor, start, os.SEEK_SET)
    with os.fdopen(os.dup(descriptor), "rb") as file:
        return file.read().decode(errors="replace")


def _write_lines_at_once() -> None:
    """Have C's stdout write every line when it is whole: a crash loses what is still in its buffer."""
    libc = ctypes.CDLL(None)
    with suppress(ValueError):  # another C library has no symbol of this name
        libc.setvbuf(ctypes.c_void_p.in_dll(libc, "stdout"), None, _LINE_BUFFERED, ctypes.c_size_t(0))


def _flush() -> None:
    """Empty the buffers of Python and of C, so that every line stands on its side of the block."""
    for stream in (sys.stdout, sys.stderr):
        with suppress(OSError, ValueError, AttributeError):
            stream.flush()
    ctypes.CDLL(None).fflush(None)
