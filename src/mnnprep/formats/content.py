"""The view of a file for the recognisers: its first bytes, and its protobuf fields at the top."""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from mnnprep.errors import RefusedError
from mnnprep.formats import foreign
from mnnprep.formats.torch_files import is_legacy
from mnnprep.safety.damage import AGAIN
from mnnprep.weights.safetensors import looks_like_it
from mnnprep.wire.buffer import Buffer, mapped
from mnnprep.wire.protobuf import WireError, fields

HEAD = 4096
HDF5 = b"\x89HDF\r\n\x1a\n"

Extent = tuple[int, int]  # of a message: its first byte, and the byte after its last


@dataclass(frozen=True)
class Message:
    """A protobuf message as far as it could be read.

    ``found`` are its fields as (number, wire type), ``first`` is the extent of the first of each number.
    """

    data: Buffer
    found: frozenset[tuple[int, int]]
    first: dict[int, Extent]
    cut: WireError | None

    def fields_at(self, extent: Extent) -> set[tuple[int, int]]:
        """The fields of the message at *extent*; none if there is no message."""
        try:
            return {(number, wire) for number, wire, _, _ in fields(self.data, *extent)}
        except (WireError, IndexError):
            return set()


class Content:
    """A file that is to be recognised, for the time of a ``with`` block: its bytes are mapped, not read."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.size = path.stat().st_size
        self._stack = ExitStack()

    def __enter__(self) -> Content:
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    @cached_property
    def head(self) -> bytes:
        """The file's first HEAD bytes."""
        with self.path.open("rb") as file:
            return file.read(HEAD)

    @cached_property
    def data(self) -> Buffer:
        """All bytes of the file, which must not be empty."""
        return self._stack.enter_context(mapped(self.path))

    @cached_property
    def text(self) -> str | None:
        """The beginning as text, None for a binary file."""
        return foreign.as_text(self.head, self.size <= HEAD)

    @property
    def suffix(self) -> str:
        """The file name's suffix in lower case, with its dot."""
        return self.path.suffix.lower()

    @property
    def is_zip(self) -> bool:
        """Whether the file begins as a ZIP archive does."""
        return self.head.startswith((b"PK\x03\x04", b"PK\x05\x06"))

    @cached_property
    def is_foreign(self) -> bool:
        """Whether the file has the signature of something that is not a model."""
        return any(self.head[at : at + len(magic)] == magic for at, magic, _ in foreign.SIGNATURES)

    @cached_property
    def unsigned(self) -> bool:
        """Whether it is a binary file without any signature, as protobuf messages and MNN's files are."""
        signed = (
            self.is_zip or self.head.startswith(HDF5) or is_legacy(self.head) or self.head[4:8] == b"TFL3"
        )
        weights = self.suffix == ".safetensors" or looks_like_it(self.head)
        return self.text is None and not (signed or self.is_foreign or weights)

    @cached_property
    def message(self) -> Message | None:
        """The file as a protobuf message; None if it can be none."""
        if not self.unsigned:
            return None
        found: set[tuple[int, int]] = set()
        first: dict[int, Extent] = {}
        cut: WireError | None = None
        try:
            for number, wire, start, end in fields(self.data, 0, self.size):
                found.add((number, wire))
                first.setdefault(number, (start, end))
        except WireError as error:
            if not error.cut and self.suffix != ".onnx":
                return None
            cut = error
            if error.field:
                found.add(error.field)
        return Message(self.data, frozenset(found), first, cut)

    def require_whole(self, title: str, cut: WireError | None) -> None:
        """Require that the message of a file that is a *title* does not end early (*cut*).

        Raises:
            RefusedError: it does.
        """
        if cut is not None:
            raise RefusedError(
                f"the {title} is {'truncated' if cut.cut else 'malformed'} at byte {cut.offset}",
                seen=f"{self.path.name}, {self.size} bytes: {cut.reason}",
                next=AGAIN,
            )
