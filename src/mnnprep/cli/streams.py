"""Standard output and error as they may be: closed, full, or a pipe that nobody reads any more."""

from __future__ import annotations

import contextlib
import io
import os
import sys
from typing import Any, TextIO

from mnnprep.errors import SystemFault


class _Stream(io.FileIO):
    """A descriptor that fails at most once, and never if *quiet*.

    What can't be written from then on is dropped.

    A reader that has gone away (``| head``) is not a failure: the command does all its work and has its own
    exit code.
    """

    def __init__(self, descriptor: int, *, quiet: bool) -> None:
        super().__init__(descriptor, "w", closefd=False)
        self._quiet = quiet

    def write(self, data: Any, /) -> int:
        try:
            return super().write(data)
        except BrokenPipeError:
            pass
        except OSError as error:
            if not self._quiet:
                self._quiet = True
                raise SystemFault(
                    "the result can't be written to standard output",
                    seen=f"stdout: {error.strerror}",
                    next=(
                        "write it to a file on a disk with room, or to a pipe that is read; the command's"
                        " own files are complete"
                    ),
                ) from error
        return memoryview(data).nbytes


def take_over() -> None:
    """Give this process streams that say one clear thing when they fail, and show what is not text escaped.

    A descriptor that is closed is opened on the null device, so that no file of ours gets its number.

    Raises:
        SystemFault: stdout is closed.
    """
    closed = [descriptor for descriptor in range(3) if not _is_open(descriptor)]
    for _ in closed:
        os.open(os.devnull, os.O_RDWR)  # the lowest number that is free
    sys.stderr = _text(2, sys.stderr, quiet=True)
    sys.stdout = _text(1, sys.stdout, quiet=1 in closed)
    if 1 in closed:
        raise SystemFault(
            "standard output is closed", seen="stdout", next="send it to a file, or to /dev/null"
        )


def _text(descriptor: int, stream: TextIO | None, *, quiet: bool) -> TextIO:
    encoding = getattr(stream, "encoding", None) or "utf-8"
    terminal = stream is not None and stream.isatty()
    raw = io.BufferedWriter(_Stream(descriptor, quiet=quiet))
    return io.TextIOWrapper(
        raw, encoding=encoding, errors="backslashreplace", line_buffering=terminal or descriptor == 2
    )


def _is_open(descriptor: int) -> bool:
    with contextlib.suppress(OSError):
        os.fstat(descriptor)
        return True
    return False
