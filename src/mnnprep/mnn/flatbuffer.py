"""Flatbuffers, read in place: tables, vectors and strings by their offsets, every one checked against the
file's end.

Format facts: flatbuffers.dev/internals (a table begins with the distance back to its vtable; a vtable holds
its own size, the table's, and one 16-bit place for every field, 0 where it is absent; vectors and strings
begin with their length).
"""

from __future__ import annotations

import mmap
import struct
from dataclasses import dataclass

from mnnprep.errors import RefusedError


def damaged(why: str) -> RefusedError:
    return RefusedError(
        "the MNN model is damaged",
        seen=why,
        next="convert or download it again, and compare its size with the original's",
    )


def unpack(form: str, data: bytes | bytearray | mmap.mmap, at: int) -> int:
    """One little-endian integer at *at*. Raises RefusedError beyond the end."""
    try:
        value: int = struct.unpack_from(form, data, at)[0]
    except struct.error as error:
        raise damaged(f"byte {at} of {len(data)}: {error}") from error
    return value


@dataclass(frozen=True)
class Table:
    """A table at ``at``; ``slots`` are the places of its fields, 0 for an absent one."""

    data: bytes | bytearray | mmap.mmap
    at: int
    slots: tuple[int, ...]

    def place(self, field: int) -> int:
        """Where the value of *field* is, 0 where it is absent."""
        return self.at + self.slots[field] if field < len(self.slots) and self.slots[field] else 0

    def present(self) -> list[int]:
        return [field for field, slot in enumerate(self.slots) if slot]

    def integer(self, field: int, form: str = "<i", default: int = 0) -> int:
        at = self.place(field)
        return unpack(form, self.data, at) if at else default

    def text(self, field: int) -> str:
        at = self.place(field)
        return string_at(self.data, follow(self.data, at)) if at else ""

    def table(self, field: int) -> Table | None:
        at = self.place(field)
        return table_at(self.data, follow(self.data, at)) if at else None

    def length(self, field: int) -> int:
        """How many elements the vector *field* has, 0 where it is absent."""
        at = self.place(field)
        return unpack("<I", self.data, follow(self.data, at)) if at else 0

    def tables(self, field: int) -> list[Table]:
        at = self.place(field)
        return (
            [table_at(self.data, place) for place in elements(self.data, follow(self.data, at))] if at else []
        )

    def texts(self, field: int) -> list[str]:
        at = self.place(field)
        return (
            [string_at(self.data, place) for place in elements(self.data, follow(self.data, at))]
            if at
            else []
        )

    def integers(self, field: int) -> list[int]:
        at = self.place(field)
        if not at:
            return []
        start = follow(self.data, at)
        count = vector_length(self.data, start, 4)
        return list(struct.unpack_from(f"<{count}i", self.data, start + 4))


def follow(data: bytes | bytearray | mmap.mmap, at: int) -> int:
    """Where the offset at *at* leads."""
    return at + unpack("<I", data, at)


def vector_length(data: bytes | bytearray | mmap.mmap, at: int, size: int) -> int:
    """The length of the vector of elements of *size* bytes at *at*; RefusedError where it would pass the
    end.
    """
    count = unpack("<I", data, at)
    if at + 4 + count * size > len(data):
        raise damaged(f"byte {at}: a list of {count} elements where {len(data) - at - 4} bytes are left")
    return count


def elements(data: bytes | bytearray | mmap.mmap, at: int) -> list[int]:
    """Where each offset of a vector of offsets leads."""
    count = vector_length(data, at, 4)
    return [follow(data, at + 4 + 4 * i) for i in range(count)]


def string_at(data: bytes | bytearray | mmap.mmap, at: int) -> str:
    count = vector_length(data, at, 1)
    return bytes(data[at + 4 : at + 4 + count]).decode("utf-8", errors="replace")


def table_at(data: bytes | bytearray | mmap.mmap, at: int) -> Table:
    vtable = at - unpack("<i", data, at)
    if vtable < 0:
        raise damaged(f"byte {at}: a table whose description lies before the file")
    size = unpack("<H", data, vtable)
    if size < 4 or size % 2 or vtable + size > len(data):
        raise damaged(f"byte {vtable}: a table description of {size} bytes")
    return Table(data, at, struct.unpack_from(f"<{(size - 4) // 2}H", data, vtable + 4))


def root(data: bytes | bytearray | mmap.mmap) -> Table:
    return table_at(data, follow(data, 0))
