"""The cost of unpickling beyond reading the bytes, known from the opcodes alone.

A pickle's memo lets every object be used again, so that a tuple of the last tuple twice, forty times, is
2**40 values: for nothing while it is only held, for hours where it is hashed (as the key of a dict, in a set)
or taken as an argument. Integers beyond 64 bits can be chosen to have one hash, and make a dict quadratic.

Format facts: CPython's Lib/pickletools.py (what each opcode takes from the stack and leaves),
Objects/longobject.c (hashes modulo 2**61 - 1).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

MOST_OPCODES = 20_000_000  # the largest checkpoints have some 5 million
MOST_UNFOLDED = 20_000_000  # values that keys and arguments hold, counted as often as they are reached
MOST_LONG = 1_000  # integers beyond 64 bits
MOST_GLOBALS = 10_000

Follow = Callable[["Growth", Any], None]


class Growth:
    """The stack of an unpickler with the size of every value in place of the value.

    What it holds is counted as often as it is reached.
    """

    def __init__(self) -> None:
        self._stack: list[int] = []
        self._marks: list[int] = []
        self._memo: dict[int, int] = {}
        self._opcodes = self._long = self._unfolded = 0

    def step(self, op: str, argument: object) -> str:
        """Follow one opcode; why it is too much, empty if it isn't.

        Raises:
            IndexError: the stack has no such value.
            KeyError: the memo has no such value.
        """
        self._opcodes += 1
        follow = _FOLLOW.get(op)
        if follow is None:
            self._stack.append(1)
        else:
            follow(self, argument)
        if self._unfolded > MOST_UNFOLDED:
            return f"keys and arguments that unfold to more than {MOST_UNFOLDED} values"
        if self._long > MOST_LONG:
            return f"more than {MOST_LONG} integers beyond 64 bits"
        return f"more than {MOST_OPCODES} operations" if self._opcodes > MOST_OPCODES else ""

    def _integer(self, argument: int) -> None:
        self._long += argument.bit_length() > 64
        self._stack.append(1)

    def _mark(self, _: None) -> None:
        self._marks.append(len(self._stack))

    def _put(self, argument: int | str) -> None:
        self._memo[int(argument)] = self._stack[-1]

    def _memoize(self, _: None) -> None:
        self._memo[len(self._memo)] = self._stack[-1]

    def _get(self, argument: int | str) -> None:
        self._stack.append(self._memo[int(argument)])

    def _pop(self, _: None) -> None:
        if self._marks and self._marks[-1] == len(self._stack):
            self._marks.pop()
        else:
            self._taken(1)

    def _dup(self, _: None) -> None:
        self._stack.append(self._stack[-1])

    def _keyed(self, items: list[int]) -> None:
        """Put keys and values into the dict on top: each key is hashed."""
        self._unfolded += sum(items[::2])
        self._join(items)

    def _hashed(self, items: list[int]) -> None:
        self._unfolded += sum(items)
        self._join(items)

    def _join(self, items: list[int]) -> None:
        self._stack[-1] = min(self._stack[-1] + sum(items), MOST_UNFOLDED + 1)

    def _new(self, items: list[int]) -> None:
        self._stack.append(min(1 + sum(items), MOST_UNFOLDED + 1))

    def _made(self, items: list[int]) -> None:
        """Leave an object that was made of *items*: whatever makes it may go through all they hold."""
        self._unfolded += sum(items)
        self._stack.append(1)

    def _taken(self, count: int) -> list[int]:
        if len(self._stack) < count:
            raise IndexError("the stack has too few values")
        items = self._stack[-count:]
        del self._stack[-count:]
        return items

    def _marked(self) -> list[int]:
        start = self._marks.pop()
        items = self._stack[start:]
        del self._stack[start:]
        return items


def _of_empty(add: Callable[[Growth, list[int]], None]) -> Follow:
    def follow(growth: Growth, _: object) -> None:
        items = growth._marked()
        growth._stack.append(1)
        add(growth, items)

    return follow


def _of_top(count: int, add: Callable[[Growth, list[int]], None]) -> Follow:
    return lambda growth, _: add(growth, growth._taken(count))


def _of_marked(add: Callable[[Growth, list[int]], None]) -> Follow:
    return lambda growth, _: add(growth, growth._marked())


def _nothing(growth: Growth, _: object) -> None:
    return None


# What an opcode does to the stack; any other one puts a value on it.
_FOLLOW: dict[str, Follow] = {
    **dict.fromkeys(("PROTO", "FRAME", "READONLY_BUFFER", "STOP"), _nothing),
    **dict.fromkeys(("LONG1", "LONG4", "LONG", "INT"), Growth._integer),
    **dict.fromkeys(("PUT", "BINPUT", "LONG_BINPUT"), Growth._put),
    **dict.fromkeys(("GET", "BINGET", "LONG_BINGET"), Growth._get),
    "MARK": Growth._mark,
    "MEMOIZE": Growth._memoize,
    "DUP": Growth._dup,
    "POP": Growth._pop,
    "POP_MARK": _of_marked(lambda growth, items: None),
    "BUILD": _of_top(1, lambda growth, items: None),
    "TUPLE1": _of_top(1, Growth._new),
    "TUPLE2": _of_top(2, Growth._new),
    "TUPLE3": _of_top(3, Growth._new),
    "TUPLE": _of_marked(Growth._new),
    "LIST": _of_marked(Growth._new),
    "APPEND": _of_top(1, Growth._join),
    "APPENDS": _of_marked(Growth._join),
    "DICT": _of_empty(Growth._keyed),
    "SETITEM": _of_top(2, Growth._keyed),
    "SETITEMS": _of_marked(Growth._keyed),
    "FROZENSET": _of_empty(Growth._hashed),
    "ADDITEMS": _of_marked(Growth._hashed),
    "REDUCE": _of_top(2, Growth._made),
    "NEWOBJ": _of_top(2, Growth._made),
    "NEWOBJ_EX": _of_top(3, Growth._made),
    "STACK_GLOBAL": _of_top(2, Growth._made),
    "BINPERSID": _of_top(1, Growth._made),
    "OBJ": _of_marked(Growth._made),
    "INST": _of_marked(Growth._made),
}
