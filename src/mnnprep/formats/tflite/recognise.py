"""Whether a file is a TensorFlow Lite model: tensorflow/lite/schema/schema.fbs, file_identifier ``TFL3``."""

from __future__ import annotations

from mnnprep.formats.content import Content


def sniff(content: Content) -> str:
    """``tflite`` for a flatbuffer with that identifier."""
    return "tflite" if content.text is None and content.head[4:8] == b"TFL3" else ""
