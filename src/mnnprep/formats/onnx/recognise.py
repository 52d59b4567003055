"""Whether a file is an ONNX model.

Format facts: onnx/onnx.proto (ModelProto).
"""

from __future__ import annotations

from mnnprep.formats.content import Content
from mnnprep.wire.protobuf import LENGTH, VARINT, WireError

TITLE = "ONNX model"
_FIELDS = frozenset(
    {(number, LENGTH) for number in (2, 3, 4, 6, 7, 8, 14, 20, 25, 26)} | {(1, VARINT), (5, VARINT)}
)


def sniff(content: Content) -> str:
    """``onnx`` for a message with a graph.

    Raises:
        RefusedError: the file ends early.
    """
    message = content.message
    if message is None:
        return ""
    found, cut = message.found, message.cut
    if (7, LENGTH) not in found or not found & {(1, VARINT), (8, LENGTH)} or (1, LENGTH) in found:
        named = content.suffix == ".onnx"
        if not (named and found and found <= _FIELDS and (1, VARINT) in found):
            return ""
        cut = cut or WireError(content.size, "the file ends before its graph", cut=True)
    content.require_whole(TITLE, cut)
    return "onnx"
