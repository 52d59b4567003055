"""Pickles, walked opcode by opcode: nothing of them is imported, called or built.

Format facts: CPython's Lib/pickletools.py.
"""

from __future__ import annotations

import io
import pickle
import pickletools
import struct
from dataclasses import dataclass
from typing import Any, BinaryIO

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

COMPUTED = "(a name computed while unpickling)"


class PickleError(ValueError):
    """The bytes are not a whole pickle."""


@dataclass(frozen=True)
class PickleScan:
    """What a pickle would import, in order of appearance, and what its outermost object is.

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


def scan_pickle(file: BinaryIO) -> PickleScan:
    """Walk the pickle at the file's position, which is left behind its end. Raises PickleError."""
    names: dict[str, None] = {}
    memo: dict[int, object] = {}
    bounded: Any = _Bounded(file)
    pushed: list[object] = [
        None,
        None,
    ]  # what the last two pushes put on the stack; None where it is no string
    root = ""
    count = 0
    growth = Growth()
    try:
        for opcode, raw, position in pickletools.genops(bounded):
            argument: Any = raw
            count += 1
            op = opcode.name
            name = ""
            if fault := growth.step(op, argument):
                raise PickleError(f"byte {position}: {fault}")
            if op in _STRINGS:
                pushed = [pushed[-1], argument]
            elif op in ("GET", "BINGET", "LONG_BINGET"):
                pushed = [pushed[-1], memo.get(int(argument))]
            elif op == "MEMOIZE":
                memo[len(memo)] = pushed[-1]
            elif op in ("PUT", "BINPUT", "LONG_BINPUT"):
                if int(argument) > count:
                    raise PickleError(f"byte {position}: the memo index {argument} after {count} operations")
                memo[int(argument)] = pushed[-1]
            elif op in ("GLOBAL", "INST"):
                name = str(argument).replace(" ", ".", 1)
                pushed = [pushed[-1], None]
            elif op == "STACK_GLOBAL":
                name = (
                    f"{pushed[0]}.{pushed[1]}" if all(isinstance(part, str) for part in pushed) else COMPUTED
                )
                pushed = [None, None]
            elif op.startswith("EXT"):
                name = f"copyreg.extension_{argument}"
            elif op not in _NEUTRAL:
                pushed = [pushed[-1], None]
            if name:
                names[name] = None
                if len(names) > MOST_GLOBALS:
                    raise PickleError(
                        f"byte {position}: it names more than {MOST_GLOBALS} classes and functions"
                    )
            if not root and op not in _NEUTRAL and op not in _STRINGS and op != "STOP":
                root = name or _ROOTS.get(op, "value")
    except DAMAGE as error:
        raise PickleError(str(error)) from error
    return PickleScan(tuple(names), root or "value")
