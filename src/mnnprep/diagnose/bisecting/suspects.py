"""Which values of a net can be looked at, which nodes lie between them, and where an error begins."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property

from mnnprep.formats.onnx.outline import Outline

SHAPE_ONLY = frozenset({"Shape", "Size"})  # operators that look at no value


@dataclass(frozen=True)
class Group:
    """The nodes between the values ``inputs`` and the value ``output``; none between can be looked at."""

    output: str
    nodes: tuple[int, ...]
    inputs: tuple[str, ...]


class Suspects:
    """A net of ``outline`` of which the values *visible* can be looked at.

    Values that follow from constants alone are not looked at: a group's piece brings them along.
    """

    def __init__(self, outline: Outline, visible: Iterable[str]) -> None:
        self.outline = outline
        self._asked = frozenset(visible)

    def without(self, values: Iterable[str]) -> Suspects:
        """The same net where *values* (but no output of the net) can't be looked at."""
        return Suspects(self.outline, self._asked - (set(values) - set(self.outline.outputs)))

    @cached_property
    def producer(self) -> dict[str, int]:
        """Map each value to the index of the node that computes it."""
        return {o: i for i, node in enumerate(self.outline.nodes) for o in node.outputs}

    @cached_property
    def constants(self) -> frozenset[str]:
        """The values that follow from no input, initializers included."""
        found = set(self.outline.initializers)
        for node in self.outline.nodes:
            if not node.bodies and all(n in found for n in node.inputs):
                found.update(node.outputs)
        return frozenset(found)

    @cached_property
    def shapes(self) -> frozenset[str]:
        """The values that follow from the shapes of others alone."""
        found: set[str] = set()
        for node in self.outline.nodes:
            taken = [n for n in node.inputs if n not in self.constants]
            if taken and (node.op in SHAPE_ONLY or all(n in found for n in taken)):
                found.update(node.outputs)
        return frozenset(found)

    @cached_property
    def visible(self) -> list[str]:
        """The values that can be looked at, in topological order."""
        return [
            o
            for node in self.outline.nodes
            for o in node.outputs
            if o in self._asked and o not in self.constants
        ]

    @cached_property
    def groups(self) -> dict[str, Group]:
        """Map each visible value to the group of nodes that makes it from other visible ones."""
        return {value: self._group(value) for value in self.visible}

    def _group(self, value: str) -> Group:
        seen, inputs = {self.producer[value]}, dict[str, None]()
        left = [self.producer[value]]
        visible = frozenset(self.visible)
        while left:
            for name in self.outline.nodes[left.pop()].inputs:
                if name in self.constants:
                    continue
                if name in visible or name not in self.producer:
                    inputs[name] = None
                elif self.producer[name] not in seen:
                    seen.add(self.producer[name])
                    left.append(self.producer[name])
        return Group(value, tuple(sorted(seen)), tuple(inputs))

    def constant_nodes(self, nodes: Iterable[int]) -> list[int]:
        """The nodes that compute the constants which *nodes* take, in topological order."""
        found: set[int] = set()
        left = [n for i in nodes for n in self.outline.nodes[i].inputs]
        while left:
            name = left.pop()
            if name in self.constants and name in self.producer and self.producer[name] not in found:
                found.add(self.producer[name])
                left += self.outline.nodes[self.producer[name]].inputs
        return sorted(found)

    def boundary(self, nodes: Iterable[int]) -> list[str]:
        """Return the values that *nodes* take from outside themselves, constants aside."""
        chosen = set(nodes)
        made = {o for i in chosen for o in self.outline.nodes[i].outputs}
        names = [n for i in sorted(chosen) for n in self.outline.nodes[i].inputs]
        return [n for n in dict.fromkeys(names) if n not in made and n not in self.constants]

    def made_for_others(self, nodes: Iterable[int]) -> list[str]:
        """Return the values of *nodes* that other nodes take, or the net gives."""
        chosen = set(nodes)
        outside = {
            n for i, node in enumerate(self.outline.nodes) if i not in chosen for n in node.inputs
        } | set(self.outline.outputs)
        return [o for i in sorted(chosen) for o in self.outline.nodes[i].outputs if o in outside]

    def live(self, position: int) -> list[str]:
        """Return what is still needed, of the values up to *position* (in `visible`), once they are known.

        The outputs among them are included.
        """
        known = set(self.visible[: position + 1])
        later = {n for value in self.visible[position + 1 :] for n in self.groups[value].inputs}
        return [
            v
            for v in self.visible[: position + 1]
            if v in known and (v in later or v in self.outline.outputs)
        ]

    def sources(self, wrong: Iterable[str], ends: Iterable[str] = ()) -> list[str]:
        """Return the values at which the errors of the wrong *ends* begin.

        Without *ends*, they are the net's outputs. The way goes back through *wrong* values to those whose
        group takes only right ones.
        """
        bad = set(wrong)
        left = [o for o in (ends or self.outline.outputs) if o in bad]
        seen, found = set(left), set()
        while left:
            value = left.pop()
            before = [n for n in self.groups[value].inputs if n in bad] if value in self.groups else []
            if not before:
                found.add(value)
            for name in before:
                if name not in seen:
                    seen.add(name)
                    left.append(name)
        return [v for v in self.visible if v in found]

    def grown(self, nodes: Iterable[int], hops: int) -> list[int]:
        """*nodes* with those around them, up to *hops* nodes away either way."""
        chosen = set(nodes)
        takers: dict[str, list[int]] = {}
        for i, node in enumerate(self.outline.nodes):
            for name in node.inputs:
                takers.setdefault(name, []).append(i)
        front = set(chosen)
        for _ in range(hops):
            near = {
                self.producer[n]
                for i in front
                for n in self.outline.nodes[i].inputs
                if n in self.producer and n not in self.constants
            }
            near |= {j for i in front for o in self.outline.nodes[i].outputs for j in takers.get(o, [])}
            front = near - chosen
            chosen |= front
        return sorted(chosen)

    def largest_jumps(self, excess: Mapping[str, float], count: int) -> list[tuple[str, float, float]]:
        """Return the values at which the error grew most.

        Each is (value, excess of what its group takes, its own), by the growth.
        """
        rows = [
            (v, max((excess.get(n, 0.0) for n in g.inputs), default=0.0), excess[v])
            for v, g in self.groups.items()
            if v in excess
        ]
        return sorted(rows, key=lambda row: row[1] - row[2])[:count]
