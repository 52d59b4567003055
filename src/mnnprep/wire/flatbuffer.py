"""Flatbuffers, read in place.

Tables, vectors and strings are found by their offsets, each checked against the file's end.

Format facts: flatbuffers.dev/internals (a table begins with the signed distance back to its vtable; a vtable
holds its own size, the table's, and one 16-bit offset for every field, 0 if it is absent; vectors and
strings begin with their length).
"""

from __future__ import annotations

import struct
from dataclasses import dataclass

from mnnprep.wire.buffer import Buffer

ROOT = 4  # bytes: a flatbuffer begins with the offset of its root table


class FlatbufferError(ValueError):
    """An offset leads out of the data, or what it leads to is not what the format has there."""


@dataclass(frozen=True)
class Table:
    """A table at ``at``, ``size`` bytes long; ``slots`` are the offsets of its fields, 0 for an absent one.

    Every method raises FlatbufferError where a value lies outside the data.
    """

    data: Buffer
    at: int
    size: int
    slots: tuple[int, ...]

    def place(self, field: int) -> int:
        """Return the offset of the value of *field*, 0 if it is absent."""
        return self.at + self.slots[field] if field < len(self.slots) and self.slots[field] else 0

    def present(self) -> list[int]:
        """The fields that have a value."""
        return [field for field, slot in enumerate(self.slots) if slot]

    def integer(self, field: int, code: str = "i", default: int = 0) -> int:
        """A scalar field, by its struct format character."""
        at = self.place(field)
        return unpack(code, self.data, at) if at else default

    def text(self, field: int) -> str:
        """A string field, empty if it is absent."""
        at = self.place(field)
        return string_at(self.data, follow(self.data, at)) if at else ""

    def table(self, field: int) -> Table | None:
        """The table that *field* leads to."""
        at = self.place(field)
        return table_at(self.data, follow(self.data, at)) if at else None

    def extent(self, field: int) -> tuple[int, int]:
        """Return the offset of the first element of *field*, and their number; (0, 0) if it is absent."""
        at = self.place(field)
        if not at:
            return 0, 0
        start = follow(self.data, at)
        return start + 4, unpack("I", self.data, start)

    def length(self, field: int) -> int:
        """How many elements the vector *field* says that it has, 0 if it is absent."""
        return self.extent(field)[1]

    def tables(self, field: int) -> list[Table]:
        """A vector of tables."""
        return [table_at(self.data, place) for place in self._elements(field)]

    def texts(self, field: int) -> list[str]:
        """A vector of strings."""
        return [string_at(self.data, place) for place in self._elements(field)]

    def integers(self, field: int, code: str = "i") -> tuple[int, ...]:
        """A vector of integers, by the struct format character of one."""
        at = self.place(field)
        return _vector(self.data, follow(self.data, at), code) if at else ()

    def floats(self, field: int) -> tuple[float, ...]:
        """A vector of float32."""
        at = self.place(field)
        return _vector(self.data, follow(self.data, at), "f") if at else ()

    def _elements(self, field: int) -> list[int]:
        at = self.place(field)
        return elements(self.data, follow(self.data, at)) if at else []


def unpack(code: str, data: Buffer, at: int) -> int:
    """One little-endian integer at *at*.

    Raises:
        FlatbufferError: the integer lies beyond the end.
    """
    try:
        value: int = struct.unpack_from(f"<{code}", data, at)[0]
    except struct.error as error:
        raise FlatbufferError(f"byte {at} of {len(data)}: {error}") from error
    return value


def follow(data: Buffer, at: int) -> int:
    """Return the place that the offset at *at* leads to."""
    return at + unpack("I", data, at)


def vector_length(data: Buffer, at: int, size: int) -> int:
    """The length of the vector of elements of *size* bytes at *at*.

    Raises:
        FlatbufferError: it would pass the end.
    """
    count = unpack("I", data, at)
    if at + 4 + count * size > len(data):
        raise FlatbufferError(
            f"byte {at}: a list of {count} elements where {len(data) - at - 4} bytes are left"
        )
    return count


def elements(data: Buffer, at: int) -> list[int]:
    """Return the places that the offsets of a vector of offsets lead to."""
    count = vector_length(data, at, 4)
    return [follow(data, at + 4 + 4 * i) for i in range(count)]


def string_at(data: Buffer, at: int) -> str:
    """The string at *at*; bytes that are not UTF-8 are shown as replacement characters."""
    count = vector_length(data, at, 1)
    return bytes(data[at + 4 : at + 4 + count]).decode("utf-8", errors="replace")


def table_at(data: Buffer, at: int) -> Table:
    """The table at *at*.

    Raises:
        FlatbufferError: its vtable lies outside the data or is malformed.
    """
    vtable = at - unpack("i", data, at)
    if vtable < ROOT:
        raise FlatbufferError(f"byte {at}: a table whose description lies before the file")
    extent, size = unpack("H", data, vtable), unpack("H", data, vtable + 2)
    if extent < 4 or extent % 2 or vtable + extent > len(data):
        raise FlatbufferError(f"byte {vtable}: a table description of {extent} bytes")
    return Table(data, at, size, struct.unpack_from(f"<{(extent - 4) // 2}H", data, vtable + 4))


def root(data: Buffer) -> Table:
    """The table that the flatbuffer in *data* is."""
    return table_at(data, follow(data, 0))


def _vector(data: Buffer, at: int, code: str) -> tuple[int, ...]:
    count = vector_length(data, at, struct.calcsize(f"<{code}"))
    return struct.unpack_from(f"<{count}{code}", data, at + 4)
