"""Whether a file is MNN's own: schema/default/MNN.fbs, the table ``Net``."""

from __future__ import annotations

from mnnprep.errors import RefusedError
from mnnprep.formats.content import Content
from mnnprep.safety.damage import AGAIN
from mnnprep.wire.flatbuffer import FlatbufferError, Table, follow, root, unpack, vector_length


def sniff(content: Content) -> str:
    """``mnn`` for a Net with operators.

    Raises:
        RefusedError: the file is truncated.
    """
    return "mnn" if content.unsigned and _is_net(content) else ""


_OPLISTS, _TENSOR_NAMES = 3, 7  # fields of MNN's Net table


def _is_net(content: Content) -> bool:
    """Whether the flatbuffer is MNN's Net: a root table with a non-empty, whole vector of operators.

    A flatbuffer has no signature of MNN's; a .mnn file whose vectors lie behind its end is refused as
    truncated.
    """
    try:
        net = root(content.data)
    except FlatbufferError:
        return False
    count = len(net.slots)
    if not _OPLISTS < count <= 32 or not net.slots[_OPLISTS] or not 4 < net.size <= 4 + 8 * count:
        return False
    if any(slot >= net.size for slot in net.slots):
        return False
    try:
        for field in (_OPLISTS, _TENSOR_NAMES):
            if net.place(field):
                _require_vector(net, field)
    except FlatbufferError as error:
        if content.suffix == ".mnn":
            raise RefusedError(
                "the MNN model is truncated",
                seen=f"{content.path.name}, {content.size} bytes: {error}",
                next=AGAIN,
            ) from error
        return False
    return True


def _require_vector(net: Table, field: int) -> None:
    """Raise FlatbufferError unless a vector of offsets, and its first and last target, lie in the data."""
    start = follow(net.data, net.place(field))
    count = vector_length(net.data, start, 4)
    if not count:
        raise FlatbufferError("a list of 0 entries")
    for index in (0, count - 1):
        unpack("I", net.data, follow(net.data, start + 4 + 4 * index))
