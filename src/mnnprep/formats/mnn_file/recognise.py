"""Whether a file is MNN's own: schema/default/MNN.fbs, the table ``Net``."""

from __future__ import annotations

import struct

from mnnprep.core.damage import AGAIN
from mnnprep.errors import RefusedError
from mnnprep.formats.content import Content
from mnnprep.formats.onnx.wire import Buffer


def sniff(content: Content) -> str:
    """``mnn`` for a Net with operators. Raises RefusedError for a truncated one."""
    return "mnn" if content.unsigned and _is_net(content) else ""


_OPLISTS, _TENSOR_NAMES = 3, 7  # fields of MNN's Net table


def _is_net(content: Content) -> bool:
    """Whether the flatbuffer is MNN's Net: a root table with a non-empty, whole vector of operators.

    A flatbuffer has no signature of MNN's; a .mnn file whose vectors lie behind its end is refused as
    truncated.
    """
    data = content.data
    try:
        (root,) = struct.unpack_from("<I", data, 0)
        (back,) = struct.unpack_from("<i", data, root)
        vtable = root - back
        extent, table = struct.unpack_from("<HH", data, vtable)
        slots = (extent - 4) // 2
        if extent % 2 or not _OPLISTS < slots <= 32 or vtable < 4 or not 4 < table <= 4 + 8 * slots:
            return False
        offsets = struct.unpack_from(f"<{slots}H", data, vtable + 4)
        if not offsets[_OPLISTS] or any(offset >= table for offset in offsets):
            return False
    except struct.error:
        return False
    try:
        for slot in (_OPLISTS, _TENSOR_NAMES):
            if slot < slots and offsets[slot]:
                _require_vector(data, root + offsets[slot])
    except struct.error as error:
        if content.suffix == ".mnn":
            raise RefusedError(
                "the MNN model is truncated",
                seen=f"{content.path.name}, {content.size} bytes: {error}",
                next=AGAIN,
            ) from error
        return False
    return True


def _require_vector(data: Buffer, at: int) -> None:
    """Raise struct.error unless a vector of offsets, and each thing it points to, lies in the data."""
    (relative,) = struct.unpack_from("<I", data, at)
    start = at + relative
    (count,) = struct.unpack_from("<I", data, start)
    if not 0 < count <= len(data) // 4:
        raise struct.error(f"a list of {count} entries")
    for index in (0, count - 1):
        place = start + 4 + 4 * index
        (offset,) = struct.unpack_from("<I", data, place)
        struct.unpack_from("<I", data, place + offset)
