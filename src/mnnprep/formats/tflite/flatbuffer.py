"""A flatbuffer read in place: tables, their fields, vectors and strings.

Format facts: flatbuffers.dev/internals.  A table begins with the signed distance back to its vtable; the
vtable holds its own size, the table's size and a 16-bit offset for every field, 0 where the field has its
default.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import Any

from mnnprep.formats.onnx.wire import Buffer


class Table:
    """The table at byte *at* of *data*. Reading past the end raises struct.error."""

    __slots__ = ("at", "data")

    def __init__(self, data: Buffer, at: int) -> None:
        self.data = data
        self.at = at

    @classmethod
    def root(cls, data: Buffer) -> Table:
        return cls(data, _uint(data, 0))

    def _field(self, slot: int) -> int:
        """Where the field *slot* lies; 0 when it has its default."""
        if self.at < 0:
            raise struct.error("a table before the start of the file")
        vtable = self.at - int(struct.unpack_from("<i", self.data, self.at)[0])
        if vtable < 0:
            raise struct.error("a vtable before the start of the file")
        size = int(struct.unpack_from("<H", self.data, vtable)[0])
        if 4 + 2 * slot >= size:
            return 0
        offset = int(struct.unpack_from("<H", self.data, vtable + 4 + 2 * slot)[0])
        return self.at + offset if offset else 0

    def number(self, slot: int, code: str, default: int = 0) -> int:
        """A scalar field, by its struct format character."""
        at = self._field(slot)
        return int(struct.unpack_from(f"<{code}", self.data, at)[0]) if at else default

    def text(self, slot: int) -> str:
        found = self.extent(slot)
        return (
            ""
            if found is None
            else self.data[found[0] : found[0] + found[1]].decode("utf-8", errors="replace")
        )

    def extent(self, slot: int) -> tuple[int, int] | None:
        """(first byte, count) of a vector or string, or None where there is none."""
        at = self._field(slot)
        if not at:
            return None
        start = at + _uint(self.data, at)
        return start + 4, _uint(self.data, start)

    def numbers(self, slot: int, code: str) -> tuple[Any, ...]:
        """A vector of scalars."""
        found = self.extent(slot)
        if found is None:
            return ()
        if found[1] * struct.calcsize(f"<{code}") > len(self.data):
            raise struct.error(f"a vector of {found[1]} entries")
        return struct.unpack_from(f"<{found[1]}{code}", self.data, found[0])

    def table(self, slot: int) -> Table | None:
        at = self._field(slot)
        return Table(self.data, at + _uint(self.data, at)) if at else None

    def tables(self, slot: int) -> Iterator[Table]:
        """A vector of tables."""
        found = self.extent(slot)
        if found and found[0] + 4 * found[1] > len(self.data):
            raise struct.error(f"a vector of {found[1]} tables")
        for index in range(found[1] if found else 0):
            at = (found or (0, 0))[0] + 4 * index
            yield Table(self.data, at + _uint(self.data, at))


def _uint(data: Buffer, at: int) -> int:
    return int(struct.unpack_from("<I", data, at)[0])
