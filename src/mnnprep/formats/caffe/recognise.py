"""Whether a file is a Caffe network or its weights.

Format facts: caffe/src/caffe/proto/caffe.proto (NetParameter, LayerParameter, V1LayerParameter,
V0LayerParameter).
"""

from __future__ import annotations

import re

from mnnprep.formats.caffe.versions import V0_TYPES
from mnnprep.formats.content import Content, Extent, Message
from mnnprep.wire.protobuf import LENGTH, VARINT, WireError, fields

WEIGHTS_TITLE = "Caffe weights file"
_PROTOTXT = re.compile(
    r"^\s*(layers?|input_shape|state)\s*\{|^\s*(input|input_dim|force_backward)\s*:", re.MULTILINE
)


def sniff(content: Content) -> str:
    """``caffe-prototxt`` or ``caffemodel``.

    Raises:
        RefusedError: the file of weights ends early.
    """
    if content.text is not None:
        plain = not content.text.lstrip().startswith(("{", "<"))
        return "caffe-prototxt" if plain and _PROTOTXT.search(content.text) else ""
    message = content.message
    if message is None or not _has_layers(message):
        return ""
    content.require_whole(WEIGHTS_TITLE, message.cut)
    return "caffemodel"


def _has_layers(message: Message) -> bool:
    """LayerParameter layer = 100; V1LayerParameter layers = 2 with name = 4, type = 5; or V0's."""
    if (100, LENGTH) in message.found:
        return True
    if 2 not in message.first:
        return False
    return {(4, LENGTH), (5, VARINT)} <= message.fields_at(message.first[2]) or _is_v0_layer(
        message, message.first[2]
    )


def _is_v0_layer(message: Message, extent: Extent) -> bool:
    """Whether the message is a connection of V0: V0LayerParameter layer = 1, with name = 1 and type = 2."""
    data = message.data
    try:
        layers = [(a, b) for number, wire, a, b in fields(data, *extent) if (number, wire) == (1, LENGTH)]
        types = [
            data[a:b]
            for layer in layers[:1]
            for number, wire, a, b in fields(data, *layer)
            if (number, wire) == (2, LENGTH)
        ]
    except (WireError, IndexError):
        return False
    return any(kind.decode("latin-1") in V0_TYPES for kind in types)
