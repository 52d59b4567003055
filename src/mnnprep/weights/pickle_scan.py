"""Pickles, walked opcode by opcode: nothing of them is imported, called or built.

Format facts: CPython's Lib/pickletools.py.
"""

from __future__ import annotations

import io
import pickle
import pickletools
import struct
from collections.abc import Callable
from dataclasses import dataclass
from typing import BinaryIO, TypeAlias, cast

from mnnprep.weights.growth import MOST_GLOBALS, Growth

# Any of these is what reading a damaged pickle raises.
DAMAGE = (
    ValueError,
    EOFError,
    IndexError,
    KeyError,
    TypeError,
    AttributeError,
    OverflowError,
    struct.error,
    pickle.UnpicklingError,
    RecursionError,
)

Argument: TypeAlias = "int | float | str | bytes | bytearray | bool | None"
COMPUTED = "(a name computed while unpickling)"


class PickleError(ValueError):
    """The bytes are not a whole pickle."""


@dataclass(frozen=True)
class PickleScan:
    """The imports of a pickle, in order of appearance, and the kind of its outermost object.

    ``globals`` are dotted names; ``root`` is ``dict``, ``list``, ``value`` or the dotted name of the
    class or function that makes the object.
    """

    globals: tuple[str, ...]
    root: str


_ROOTS = {"EMPTY_DICT": "dict", "DICT": "dict", "EMPTY_LIST": "list", "LIST": "list", "EMPTY_SET": "value"}
_NEUTRAL = frozenset(
    {"PROTO", "FRAME", "MARK", "MEMOIZE", "PUT", "BINPUT", "LONG_BINPUT"}
)  # before the outermost object is made
_STRINGS = frozenset(
    op.name
    for op in pickletools.opcodes
    if "UNICODE" in op.name or op.name in ("STRING", "BINSTRING", "SHORT_BINSTRING")
)


class _Bounded:
    """A file that is never asked for more than it has: a length in a damaged pickle may be any number."""

    def __init__(self, file: BinaryIO) -> None:
        start = file.tell()
        self._end = file.seek(0, io.SEEK_END)
        file.seek(start)
        self._file = file
        self.tell = file.tell
        self.readline = file.readline

    def read(self, size: int) -> bytes:
        return self._file.read(max(0, min(size, self._end - self._file.tell())))


class _Scan:
    """The names that a pickle imports, followed opcode by opcode with as much of its stack as they need."""

    def __init__(self) -> None:
        self.names: dict[str, None] = {}
        self.root = ""
        self._memo: dict[int, object] = {}
        # What the last two pushes put on the stack; None where it is no string.
        self._pushed: tuple[object, object] = (None, None)
        self._count = 0
        self._growth = Growth()

    def step(self, op: str, argument: Argument) -> None:
        """Follow one opcode. Raises PickleError, and one of DAMAGE where the pickle is damaged."""
        self._count += 1
        if fault := self._growth.step(op, argument):
            raise PickleError(fault)
        name = ""
        if op in _STRINGS:
            self._push(argument)
        elif op in _HANDLERS:
            name = _HANDLERS[op](self, argument)
        elif op not in _NEUTRAL:
            self._push(None)
        if name:
            self.names[name] = None
            if len(self.names) > MOST_GLOBALS:
                raise PickleError(f"it names more than {MOST_GLOBALS} classes and functions")
        if not self.root and op not in _NEUTRAL and op not in _STRINGS and op != "STOP":
            self.root = name or _ROOTS.get(op, "value")

    def _push(self, value: object) -> None:
        self._pushed = (self._pushed[1], value)

    def _get(self, argument: Argument) -> str:
        self._push(self._memo.get(int(argument or 0)))
        return ""

    def _memoize(self, _: Argument) -> str:
        self._memo[len(self._memo)] = self._pushed[1]
        return ""

    def _put(self, argument: Argument) -> str:
        index = int(argument or 0)
        if index > self._count:
            raise PickleError(f"the memo index {index} after {self._count} operations")
        self._memo[index] = self._pushed[1]
        return ""

    def _global(self, argument: Argument) -> str:
        self._push(None)
        return str(argument).replace(" ", ".", 1)

    def _stack_global(self, _: Argument) -> str:
        module, name = self._pushed
        self._pushed = (None, None)
        return f"{module}.{name}" if isinstance(module, str) and isinstance(name, str) else COMPUTED

    def _extension(self, argument: Argument) -> str:
        return f"copyreg.extension_{argument!s}"


# Each gives the full name that the opcode imports, if it imports one.
_HANDLERS: dict[str, Callable[[_Scan, Argument], str]] = {
    **dict.fromkeys(("GET", "BINGET", "LONG_BINGET"), _Scan._get),
    **dict.fromkeys(("PUT", "BINPUT", "LONG_BINPUT"), _Scan._put),
    **dict.fromkeys(("GLOBAL", "INST"), _Scan._global),
    **dict.fromkeys(("EXT1", "EXT2", "EXT4"), _Scan._extension),
    "MEMOIZE": _Scan._memoize,
    "STACK_GLOBAL": _Scan._stack_global,
}


def scan_pickle(file: BinaryIO) -> PickleScan:
    """Walk the pickle at the file's position, which is left behind its end.

    Raises:
        PickleError: the pickle is damaged.
    """
    scan = _Scan()
    bounded = cast("BinaryIO", _Bounded(file))
    try:
        for opcode, argument, position in pickletools.genops(bounded):
            try:
                scan.step(opcode.name, argument)
            except PickleError as error:
                raise PickleError(f"byte {position}: {error}") from error
    except DAMAGE as error:
        raise PickleError(str(error)) from error
    return PickleScan(tuple(scan.names), scan.root or "value")
