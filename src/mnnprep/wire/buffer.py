"""The bytes that the readers take: in memory, or a file mapped into it."""

from __future__ import annotations

import mmap
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

Buffer = bytes | bytearray | mmap.mmap


@contextmanager
def mapped(path: Path) -> Iterator[mmap.mmap]:
    """The bytes of a non-empty file, mapped: only the pages that are looked at are read."""
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        if hasattr(mmap, "MADV_RANDOM"):
            data.madvise(mmap.MADV_RANDOM)  # no read-ahead into tensor bytes
        yield data
