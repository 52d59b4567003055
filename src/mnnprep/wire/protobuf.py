"""The protobuf wire format, read in place, and its two forms that are written.

A field's extent is known without reading its bytes.

Format facts: protobuf.dev/programming-guides/encoding (tag = number << 3 | wire type; varints of
seven bits a byte, least significant first, at most ten bytes).
"""

from __future__ import annotations

from collections.abc import Iterator

from mnnprep.wire.buffer import Buffer

VARINT, FIXED64, LENGTH, FIXED32 = 0, 1, 2, 5

# (number, wire type, first, last): a varint is (value, offset); anything else is the extent [first, last) of
# its bytes.
Field = tuple[int, int, int, int]


class WireError(ValueError):
    """The bytes at ``offset`` are not the wire format.

    ``field`` is the (number, wire type) that they began, if any.

    ``cut`` tells a value that runs past its end (a truncated file) from one that is wrong.
    """

    def __init__(
        self, offset: int, reason: str, *, cut: bool = False, field: tuple[int, int] | None = None
    ) -> None:
        super().__init__(f"byte {offset}: {reason}")
        self.offset = offset
        self.reason = reason
        self.cut = cut
        self.field = field


def varint(data: Buffer, at: int, end: int) -> tuple[int, int]:
    """The unsigned varint at *at* and the offset behind it."""
    value = shift = 0
    for position in range(at, min(at + 10, end)):
        byte = data[position]
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value & 0xFFFF_FFFF_FFFF_FFFF, position + 1
        shift += 7
    if at + 10 <= end:
        raise WireError(at, "a number of more than ten bytes")
    raise WireError(at, "the bytes end inside a number", cut=True)


def encoded(value: int) -> bytes:
    """*value*, which is not negative, as a varint."""
    out = bytearray()
    while value >= 0x80:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def delimited(number: int, payload: bytes) -> bytes:
    """Field *number* with the bytes *payload*: a message, a string or packed numbers."""
    return encoded(number << 3 | LENGTH) + encoded(len(payload)) + payload


def verbatim(data: Buffer, field: Field) -> bytes:
    """The bytes of one of the :func:`fields` of *data*, its tag included."""
    number, kind, first, last = field
    tag = encoded(number << 3 | kind)
    if kind == VARINT:
        return tag + encoded(first)
    return tag + (encoded(last - first) if kind == LENGTH else b"") + data[first:last]


def signed(value: int) -> int:
    """The int64 that an unsigned varint stands for (two's complement)."""
    return value - (1 << 64) if value >= 1 << 63 else value


def fields(data: Buffer, start: int, end: int) -> Iterator[Field]:
    """The fields of the message in ``data[start:end]``, in file order.

    Raises:
        WireError: the bytes are not the wire format.
    """
    at = start
    while at < end:
        tag, behind = varint(data, at, end)
        number, kind = tag >> 3, tag & 7
        if number == 0 or number >= 1 << 29:
            raise WireError(at, f"the field number {number}, which protobuf does not have")
        if kind == VARINT:
            value, following = varint(data, behind, end)
            yield number, kind, value, behind
        else:
            if kind == LENGTH:
                length, first = varint(data, behind, end)
            elif kind in (FIXED32, FIXED64):
                length, first = (4 if kind == FIXED32 else 8), behind
            else:
                raise WireError(at, f"the wire type {kind}, which is not in use")
            following = first + length
            if following > end:
                reason = f"field {number} is said to take {length} bytes where {end - first} are left"
                raise WireError(at, reason, cut=True, field=(number, kind))
            yield number, kind, first, following
        at = following


def packed(data: Buffer, field: Field) -> Iterator[int]:
    """The numbers of one occurrence of a repeated varint field, packed or not."""
    _, kind, first, last = field
    if kind == VARINT:
        yield first
    elif kind == LENGTH:
        at = first
        while at < last:
            value, at = varint(data, at, last)
            yield value


def text(data: Buffer, first: int, last: int) -> str:
    """A string field; bytes that are not UTF-8 are shown as replacement characters."""
    return data[first:last].decode("utf-8", errors="replace")
