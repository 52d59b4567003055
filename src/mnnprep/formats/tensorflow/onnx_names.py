"""Steady orders in tf2onnx, so that it gives the same bytes for the same source.

They are those of its sets, of its nodes and names.

tf2onnx goes through sets of nodes, whose order is that of their addresses, other ones in each process.  It
numbers what it makes by one counter (``Transpose__17``), and sorts the nodes by name.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterator
from itertools import count
from typing import Any

from mnnprep.deps import require

_NUMBERED = re.compile(r"(.*__\d+)(.*)", re.DOTALL)
_NUMBER = re.compile(r"__\d+")


def steady() -> None:
    """Keep sets of tf2onnx's nodes, from now on, in the order in which the nodes were made.

    That holds as far as a set has an order.
    """
    node: Any = require("tf2onnx.graph").Node
    if node.__hash__ is not object.__hash__:
        return
    made, numbers = node.__init__, count()

    def init(self: Any, *arguments: Any, **named: Any) -> None:
        self.mnnprep_number = next(numbers)
        made(self, *arguments, **named)

    node.__init__, node.__hash__ = init, lambda self: self.mnnprep_number


def settle(model: Any, kept: Collection[str]) -> None:
    """Order *model*'s nodes, initializers and shapes, and number tf2onnx's names anew in that order.

    Names of inputs and outputs stay, and those in *kept*: nodes or tensors of the source.
    """
    _order(model.graph)
    ports = {port.name for port in (*model.graph.input, *model.graph.output)}
    names = _Numbers({*ports, *kept})
    sizes = _Numbers(())
    for graph in _graphs(model.graph):
        _rename(graph, names, sizes)


def _order(graph: Any) -> list[str]:
    """Order *graph* and those in it; gives the names that it takes from outside, in order.

    A node comes after what it needs, its first input first, from the first output on: names have no part in
    it.
    """
    keys = {output: _key(node) for node in graph.node for output in node.output if output}
    needs = {_key(node): [*filter(None, node.input), *_captured(node)] for node in graph.node}
    place: dict[str, int] = {}  # of each node by its key, and of each tensor that no node here gives
    for wanted in (*(output.name for output in graph.output), *needs):  # what reaches no output comes last
        waiting = [(keys.get(wanted, wanted), False)]
        while waiting:
            key, ready = waiting.pop()
            if ready:
                place.setdefault(key, len(place))
            elif key not in place:
                waiting.append((key, True))
                waiting += [(keys.get(name, name), False) for name in reversed(needs.get(key, ()))]
    graph.node.sort(key=lambda node: place[_key(node)])
    graph.initializer.sort(key=lambda tensor: place.get(tensor.name, len(place)))
    rank = {name: at for at, name in enumerate(output for node in graph.node for output in node.output)}
    graph.value_info.sort(
        key=lambda value: rank.get(value.name, len(rank) + place.get(value.name, len(place)))
    )
    own = {*needs, *(tensor.name for tensor in graph.initializer), *(port.name for port in graph.input)}
    return [name for name in place if name not in own]


def _key(node: Any) -> str:
    """The first tensor that *node* gives: no other node has it."""
    return next(filter(None, node.output), "")


def _captured(node: Any) -> Iterator[str]:
    """Return the values that the graphs inside *node* take from outside, after they are put in order."""
    for attribute in node.attribute:
        for graph in (*([attribute.g] if attribute.HasField("g") else []), *attribute.graphs):
            yield from _order(graph)


def _graphs(graph: Any) -> Iterator[Any]:
    """*graph* and those in its nodes, each before what is in it."""
    yield graph
    for node in graph.node:
        for attribute in node.attribute:
            for inner in (*([attribute.g] if attribute.HasField("g") else []), *attribute.graphs):
                yield from _graphs(inner)


class _Numbers:
    """New names for old ones, numbered in the order in which they are asked for; those in *kept* stay."""

    def __init__(self, kept: Collection[str]) -> None:
        self._kept = frozenset(kept)
        self._taken = {match[1] for name in self._kept if (match := _NUMBERED.fullmatch(name))}
        self._stems: dict[str, str] = {}

    def __call__(self, name: str) -> str:
        match = _NUMBERED.fullmatch(name)
        if match is None or name in self._kept or name.rpartition(":")[0] in self._kept:
            return name
        stem, rest = match.groups()
        if stem not in self._stems:
            base, number = _NUMBER.sub("", stem), len(self._stems) + 1
            while f"{base}__{number}" in self._taken:
                number += 1
            self._taken.add(f"{base}__{number}")
            self._stems[stem] = f"{base}__{number}"
        return self._stems[stem] + rest


def _rename(graph: Any, names: Callable[[str], str], sizes: Callable[[str], str]) -> None:
    graph.name = names(graph.name)
    for node in graph.node:
        node.name = names(node.name)
        node.input[:] = map(names, node.input)
        node.output[:] = map(names, node.output)
    for named in (*graph.input, *graph.initializer, *graph.output, *graph.value_info):
        named.name = names(named.name)
    for value in (*graph.input, *graph.output, *graph.value_info):
        for dim in value.type.tensor_type.shape.dim:
            if dim.dim_param:
                dim.dim_param = sizes(dim.dim_param)
