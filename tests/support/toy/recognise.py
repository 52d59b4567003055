"""Whether a file is a toy net: JSON text that begins with ``{"toy":``."""

from __future__ import annotations

from mnnprep.formats.content import Content


def sniff(content: Content) -> str:
    """``toy`` for a text with that beginning."""
    return "toy" if content.text is not None and content.text.startswith('{"toy":') else ""
