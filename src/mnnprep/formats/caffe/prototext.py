"""Protobuf's text format, read and written without a schema: what no definition knows is kept as it stands.

Format facts: protobuf.dev/reference/protobuf/textformat-spec (messages in ``{}`` or ``<>``, ``#`` comments,
lists in ``[]``, strings that stand side by side are one, ``,`` and ``;`` between fields mean nothing).
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from mnnprep.errors import RefusedError

MAX_DEPTH = 64
MAX_BYTES = 8 << 20  # the largest published network is far below 1 MB; weights as text are not a prototxt

_TOKEN = re.compile(
    r"""(?P<space>[\s,;]+|\#[^\n]*)
      |(?P<string>"(?:[^"\\\n]|\\.)*"|'(?:[^'\\\n]|\\.)*')
      |(?P<word>[-+]?[A-Za-z0-9_.][A-Za-z0-9_.+-]*)
      |(?P<sign>[{}<>\[\]:])""",
    re.VERBOSE,
)
_ESCAPE = re.compile(r"\\(x[0-9A-Fa-f]{1,2}|[0-7]{1,3}|.)", re.DOTALL)
_ESCAPES = {"n": "\n", "t": "\t", "r": "\r", "a": "\a", "b": "\b", "f": "\f", "v": "\v"}


@dataclass(frozen=True)
class Scalar:
    """A number, a name or a string, as written; ``line`` is where."""

    text: str
    quoted: bool = False
    line: int = field(default=0, compare=False)


@dataclass
class Message:
    """Fields in the order of the file; a repeated field stands there more than once."""

    fields: list[tuple[str, Scalar | Message]] = field(default_factory=list)
    line: int = field(default=0, compare=False)

    def has(self, name: str) -> bool:
        """Whether there is a field of this name."""
        return any(n == name for n, _ in self.fields)

    def messages(self, name: str) -> list[Message]:
        """Return the submessages of this name, in the order of the file."""
        return [v for n, v in self.fields if n == name and isinstance(v, Message)]

    def message(self, name: str) -> Message:
        """The last message *name* (protobuf merges; real files have one), or an empty one."""
        return next(iter(self.messages(name)[::-1]), Message())

    def texts(self, name: str) -> list[str]:
        """Return the scalars of this name as texts, in the order of the file."""
        return [v.text for n, v in self.fields if n == name and isinstance(v, Scalar)]

    def text(self, name: str, default: str = "") -> str:
        """Return the last scalar of this name as protobuf does, *default* if there is none."""
        return next(iter(self.texts(name)[::-1]), default)

    def integers(self, name: str) -> list[int]:
        """Return the integers of this name, in the order of the file.

        Raises:
            RefusedError: one is not an integer.
        """
        return [_integer(name, v) for n, v in self.fields if n == name and isinstance(v, Scalar)]

    def integer(self, name: str, default: int = 0) -> int:
        """Return the last integer of this name, *default* if there is none."""
        return next(iter(self.integers(name)[::-1]), default)

    def numbers(self, name: str) -> list[float]:
        """Return the scalars of this name as floats, in the order of the file."""
        return [_number(name, v) for n, v in self.fields if n == name and isinstance(v, Scalar)]

    def number(self, name: str, default: float = 0.0) -> float:
        """Return the last number of this name, *default* if there is none."""
        return next(iter(self.numbers(name)[::-1]), default)

    def flag(self, name: str, default: bool) -> bool:
        """Return the last boolean of this name (``true``, ``t`` or ``1``), *default* if there is none."""
        found = self.text(name)
        return default if not found else found.lower() in ("true", "t", "1")

    def without(self, *names: str) -> Message:
        """Return the message without the fields of these names."""
        return Message([(n, v) for n, v in self.fields if n not in names], self.line)

    def add(self, name: str, value: str | int | float | Message, *, quoted: bool = False) -> None:
        """Append a field; a *quoted* scalar is a string, others are numbers, booleans and enum names."""
        self.fields.append((name, value if isinstance(value, Message) else Scalar(str(value), quoted)))


def _integer(name: str, value: Scalar) -> int:
    try:
        return int(value.text, 0)
    except ValueError:
        raise _bad(value.line, f"{name} is {value.text!r} instead of an integer") from None


def _number(name: str, value: Scalar) -> float:
    try:
        return float(
            value.text.lower().removesuffix("f")
            if value.text[-1:] in "fF" and value.text[:1] not in "iI"
            else value.text
        )
    except ValueError:
        raise _bad(value.line, f"{name} is {value.text!r} instead of a number") from None


def _bad(line: int, reason: str) -> RefusedError:
    return RefusedError(
        "the prototxt can't be read",
        seen=f"line {line}: {reason}",
        next="fix this line, or download the file again",
    )


def parse(text: str) -> Message:
    """The message that *text* is.

    Raises:
        RefusedError: the text is not in protobuf's text format; the line is named.
    """
    if len(text) > MAX_BYTES:
        raise _bad(1, f"{len(text)} characters; a network's definition is never so long")
    tokens = list(_tokens(text))
    message, at = _fields(tokens, 0, "", 0, 1)
    if at != len(tokens):
        raise _bad(tokens[at][2], f"{tokens[at][1]!r} closes nothing")
    return message


Token = tuple[str, str, int]  # kind, text, line


def _tokens(text: str) -> Iterator[Token]:
    at, line = 0, 1
    while at < len(text):
        match = _TOKEN.match(text, at)
        if match is None:
            raise _bad(line, f"unexpected {text[at]!r}")
        kind, found = str(match.lastgroup), match[0]
        if kind != "space":
            yield kind, found, line
        line += found.count("\n")
        at = match.end()


def _fields(tokens: list[Token], at: int, closer: str, depth: int, line: int) -> tuple[Message, int]:
    """The fields up to *closer* (empty: the end), and the index behind it."""
    if depth > MAX_DEPTH:
        raise _bad(line, f"messages nested more than {MAX_DEPTH} deep")
    message = Message([], line)
    while at < len(tokens):
        kind, name, line = tokens[at]
        if kind == "sign" and name == closer:
            return message, at + 1
        if kind != "word":
            if not closer and name in "}>":
                return message, at
            raise _bad(line, f"{name!r} instead of a field's name")
        at += 1
        colon = at < len(tokens) and tokens[at][1] == ":" and tokens[at][0] == "sign"
        at += colon
        if at >= len(tokens):
            break
        values, at = _value(tokens, at, name, colon, depth)
        message.fields += [(name, value) for value in values]
    else:
        if not closer:
            return message, at
    raise _bad(tokens[-1][2], "the text ends inside a message: the file is truncated")


def _value(
    tokens: list[Token], at: int, name: str, colon: bool, depth: int
) -> tuple[list[Scalar | Message], int]:
    kind, found, line = tokens[at]
    if kind == "sign" and found in "{<":
        message, at = _fields(tokens, at + 1, "}" if found == "{" else ">", depth + 1, line)
        return [message], at
    if not colon:
        raise _bad(line, f"{name} is followed by neither a colon nor a message")
    if kind == "sign" and found == "[":
        items: list[Scalar | Message] = []
        at += 1
        while at < len(tokens) and tokens[at][1] != "]":
            more, at = _value(tokens, at, name, True, depth + 1)
            items += more
        if at >= len(tokens):
            raise _bad(line, "a list without its end: the file is truncated")
        return items, at + 1
    if kind == "string":
        parts = []
        while at < len(tokens) and tokens[at][0] == "string":
            parts.append(_unescape(tokens[at][1][1:-1]))
            at += 1
        return [Scalar("".join(parts), True, line)], at
    if kind != "word":
        raise _bad(line, f"{name} is {found!r} instead of a value")
    return [Scalar(found, False, line)], at + 1


def _unescape(text: str) -> str:
    def one(match: re.Match[str]) -> str:
        code = match[1]
        if code[0] == "x" and len(code) > 1:
            return chr(int(code[1:], 16))
        return chr(int(code, 8)) if code[0] in "01234567" else _ESCAPES.get(code, code)

    return _ESCAPE.sub(one, text)


def write(message: Message) -> str:
    """The text of *message*, two spaces a level; the same message always gives the same text."""
    return "".join(_lines(message, 0))


def _lines(message: Message, depth: int) -> Iterable[str]:
    indent = "  " * depth
    for name, value in message.fields:
        if isinstance(value, Message):
            yield f"{indent}{name} {{\n"
            yield from _lines(value, depth + 1)
            yield f"{indent}}}\n"
        else:
            yield f"{indent}{name}: {_quoted(value.text) if value.quoted else value.text}\n"


def _quoted(text: str) -> str:
    return (
        '"'
        + text.replace("\\", "\\\\")
        .replace('"', '\\"')
        .replace("\n", "\\n")
        .replace("\r", "\\r")
        .replace("\t", "\\t")
        + '"'
    )
