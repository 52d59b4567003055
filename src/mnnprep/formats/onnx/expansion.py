"""The size of an ONNX model once its local functions stand at their calls.

Thirty functions that call the next twice are 2^30 nodes.

Format fact: docs/IR.md (a FunctionProto is named by domain and name, must not call itself, and may be inlined
by any tool).
"""

from __future__ import annotations

from collections.abc import Mapping

MOST_NODES = 20_000_000  # in one graph; the largest real ones have some 100,000
Name = tuple[str, str]  # domain, operator
MAIN: Name = ("", "")


class Endless(Exception):
    """A function that calls itself, by way of others or not; ``name`` is one of them."""

    def __init__(self, name: Name) -> None:
        super().__init__("::".join(filter(None, name)))


def expanded_nodes(calls: Mapping[Name, Mapping[Name, int]]) -> int:
    """The nodes of MAIN with every function inlined; counting ends at MOST_NODES + 1.

    *calls* has, for MAIN and every function, how often each operator stands in it.

    Raises:
        Endless: a function calls itself.
    """
    sizes: dict[Name, int] = {}
    open_: set[Name] = set()
    stack = [MAIN]
    while stack:
        name = stack[-1]
        if name in sizes:
            stack.pop()
            continue
        called = [
            callee for callee in calls[name] if callee in calls and callee != MAIN and callee not in sizes
        ]
        if name in open_ and called:
            raise Endless(name)
        if called:
            open_.add(name)
            stack += called
            continue
        total = sum(count * sizes.get(callee, 1) for callee, count in calls[name].items())
        sizes[name] = min(total, MOST_NODES + 1)
        open_.discard(name)
        stack.pop()
    return sizes[MAIN]
