"""Text that came from a file or a path, as a terminal, a page or a JSON document may show it.

A name in a model can hold anything: escape sequences that retitle a terminal or overwrite what stands above,
marks that turn the reading direction, line breaks, halves of a surrogate pair.  Everything a person is shown
goes through :func:`plain` or :func:`one_line`; every JSON document through :func:`json_text`.
"""

from __future__ import annotations

import json
import re
import unicodedata
from typing import Any

import msgspec

# Control, format (zero-width and bidirectional marks among them), surrogate; the line and paragraph
# separators.
HIDDEN = frozenset({"Cc", "Cf", "Cs", "Zl", "Zp"})
_SURROGATE = re.compile("[\ud800-\udfff]")


def plain(text: object) -> str:
    r"""Return *text* with its hidden characters visible as ``\x1b`` or ``\u202e``.

    A name can't rewrite what is around it then.

    Line breaks stay: it is for texts of our own, and for logs.
    """
    return "".join(c if c == "\n" else _shown(c) for c in str(text))


def one_line(text: object) -> str:
    """:func:`plain` for a name: its line breaks are made visible, too."""
    return "".join(_shown(c) for c in str(text))


def as_text(text: str) -> str:
    r"""Return *text* with halves of surrogate pairs visible as ``\udc80``: UTF-8 can hold none."""
    return _SURROGATE.sub(lambda match: _escaped(match[0]), text)


def json_text(document: object, *, ascii_only: bool = False) -> str:
    """Return *document* as indented JSON that is valid UTF-8 and safe to print.

    It is anything `msgspec.to_builtins` takes.

    Hidden characters are JSON escapes, so a program reads them as they are; halves of surrogate pairs, which
    are not characters, it reads as the six that :func:`as_text` makes of each.

    Raises:
        ValueError: NaN or an infinity, which JSON does not have.
    """
    value = textual(msgspec.to_builtins(document))
    dumped = json.dumps(value, indent=2, ensure_ascii=ascii_only, allow_nan=False)
    return "".join(c if c == "\n" or (c.isascii() and c != "\x7f") else _json_escaped(c) for c in dumped)


def textual(value: Any) -> Any:
    """Plain data with :func:`as_text` applied to every string in it, the keys of dictionaries too."""
    if isinstance(value, str):
        return as_text(value)
    if isinstance(value, dict):
        return {textual(key): textual(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [textual(item) for item in value]
    return value


def _shown(character: str) -> str:
    return _escaped(character) if unicodedata.category(character) in HIDDEN else character


def _escaped(character: str) -> str:
    code = ord(character)
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"


def _json_escaped(character: str) -> str:
    """A character outside ASCII in a JSON string: as it is, or as an escape if it is hidden."""
    if unicodedata.category(character) not in HIDDEN:
        return character
    return json.dumps(character)[1:-1] if character != "\x7f" else "\\u007f"
