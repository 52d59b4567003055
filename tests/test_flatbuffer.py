"""Flatbuffers read in place: what one holds, and that nothing outside the data is read."""

from __future__ import annotations

import flatbuffers
import pytest

from mnnprep.wire.flatbuffer import FlatbufferError, root


def built() -> bytes:
    """A table with a text, integers, a table with a number in it, and a list of two of those."""
    builder = flatbuffers.Builder(0)
    text = builder.CreateString("name")
    builder.StartVector(4, 3, 4)
    for number in (3, -2, 1):
        builder.PrependInt32(number)
    numbers = builder.EndVector()

    def inner(number: int) -> int:
        builder.StartObject(1)
        builder.PrependUint8Slot(0, number, 0)
        return builder.EndObject()

    tables = [inner(7), inner(9)]
    builder.StartVector(4, 2, 4)
    for table in reversed(tables):
        builder.PrependUOffsetTRelative(table)
    listed = builder.EndVector()
    builder.StartObject(6)
    builder.PrependUOffsetTRelativeSlot(0, text, 0)
    builder.PrependUOffsetTRelativeSlot(1, numbers, 0)
    builder.PrependUOffsetTRelativeSlot(2, tables[0], 0)
    builder.PrependUOffsetTRelativeSlot(4, listed, 0)
    builder.Finish(builder.EndObject())
    return bytes(builder.Output())


def test_what_a_table_holds() -> None:
    table = root(built())
    assert table.present() == [0, 1, 2, 4]
    assert table.text(0) == "name"
    assert table.integers(1) == (1, -2, 3)
    assert [t.integer(0, "B") for t in table.tables(4)] == [7, 9]
    inner = table.table(2)
    assert inner is not None
    assert inner.integer(0, "B") == 7


def test_what_is_absent() -> None:
    table = root(built())
    assert (table.text(3), table.table(3), table.integers(5), table.length(9)) == ("", None, (), 0)
    assert table.integer(5, default=4) == 4


def test_nothing_outside_is_read() -> None:
    """Of a file cut anywhere, every value is either right or an error."""
    whole = built()
    for size in range(len(whole)):
        try:
            table = root(whole[:size])
            found = table.text(0), table.integers(1), [t.integer(0, "B") for t in table.tables(4)]
        except FlatbufferError:
            continue
        assert found == ("name", (1, -2, 3), [7, 9])


@pytest.mark.parametrize("count", [1 << 30, (1 << 32) - 1])
def test_a_vector_that_would_pass_the_end_is_an_error(count: int) -> None:
    data = bytearray(built())
    start = root(data).extent(1)[0]
    data[start - 4 : start] = count.to_bytes(4, "little")
    with pytest.raises(FlatbufferError):
        root(data).integers(1)
