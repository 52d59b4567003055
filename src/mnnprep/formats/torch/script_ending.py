"""Whether the code that ``torch.jit.load`` runs ends: every class's ``__setstate__``, and what it calls.

Such code takes tensors out of a tuple and packs them; nothing in it goes round.  Therefore a loop in it is
refused, and so are functions that call each other in a circle, or too often (each of thirty the next one
twice).

Names are judged, not calls.  A method of ``self`` is the own class's; any other name may stand for every
function and every method that is called so.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

MOST_CALLS = 10_000  # by one __setstate__; those of torch's own modules make one or two
_LOOPS = (ast.While, ast.For, ast.AsyncFor, ast.comprehension)
# What a subscript calls; other methods of such names: operators, conditions, ``with`` and built-in functions.
_SUBSCRIPT = frozenset({"__getitem__", "__setitem__", "__delitem__"})
_BY_NAME = frozenset({"__new__", "__init__", "__getstate__", "__setstate__"})
_OPERATORS = (ast.operator, ast.unaryop, ast.cmpop, ast.boolop, ast.If, ast.IfExp, ast.Assert, ast.With)


@dataclass(frozen=True, eq=False)
class _Function:
    record: str
    owner: ast.ClassDef | None
    node: ast.FunctionDef


def endless(trees: Mapping[str, ast.Module]) -> Iterator[tuple[str, int, str]]:
    """Name what may never end while the archive is loaded: the record, the line and what is there."""
    calls = _Calls([function for record, tree in trees.items() for function in _functions(record, tree)])
    for function in calls.functions:
        if function.node.name == "__setstate__":
            yield from calls.faults(function)


def _functions(record: str, tree: ast.Module) -> Iterator[_Function]:
    """Every function of a file with the class it stands in."""
    waiting: list[tuple[ast.AST, ast.ClassDef | None]] = [(tree, None)]
    for parent, owner in waiting:
        for node in ast.iter_child_nodes(parent):
            if isinstance(node, ast.FunctionDef):
                yield _Function(record, owner, node)
            waiting.append((node, node if isinstance(node, ast.ClassDef) else owner))


class _Calls:
    """Which functions call which; ``faults`` follows them from one of them."""

    def __init__(self, functions: list[_Function]) -> None:
        self.functions = functions
        self._named: dict[str, list[_Function]] = {}
        self._built: dict[str, list[_Function]] = {}  # what makes an object, by its class's name
        for function in functions:
            name = function.node.name
            self._named.setdefault(name, []).append(function)
            if function.owner is not None and name == "__init__":
                self._built.setdefault(function.owner.name, []).append(function)
        self._unnamed = sorted(n for n in self._named if n[:2] == n[-2:] == "__" and n not in _BY_NAME)
        self._cost: dict[_Function, int] = {}  # its calls, itself included, up to one too many
        self._called: dict[_Function, list[list[_Function]]] = {}

    def faults(self, root: _Function) -> Iterator[tuple[str, int, str]]:
        """Name what may not end in *root* and in what it calls, beside what an earlier one showed."""
        path: dict[_Function, Iterator[_Function]] = {}
        waiting = [root]
        while waiting or path:
            if waiting:
                function = waiting.pop()
                if function in path:
                    what = f"{function.node.name}, which calls itself while the file is loaded"
                    yield function.record, function.node.lineno, what
                elif function not in self._cost:
                    yield from self._loops(function)
                    self._called[function] = self._references(function)
                    path[function] = iter([found for those in self._called[function] for found in those])
            function, left = next(reversed(path.items()), (root, iter(())))
            following = next(left, None)
            if following is not None:
                waiting.append(following)
            elif path:
                path.popitem()
                made = sum(max(self._cost.get(f, 1) for f in those) for those in self._called[function])
                self._cost[function] = min(1 + made, MOST_CALLS + 1)
        if self._cost[root] > MOST_CALLS:
            yield root.record, root.node.lineno, f"a __setstate__ that may make more than {MOST_CALLS} calls"

    def _loops(self, function: _Function) -> Iterator[tuple[str, int, str]]:
        for node in ast.walk(function.node):
            if isinstance(node, _LOOPS):
                line = node.target.lineno if isinstance(node, ast.comprehension) else node.lineno
                yield function.record, line, "a loop that runs while the file is loaded"

    def _references(self, function: _Function) -> list[list[_Function]]:
        """Map each name in *function* to the functions that the name may stand for."""
        bound = {argument.arg for argument in ast.walk(function.node.args) if isinstance(argument, ast.arg)}
        own = function.node.args.args[0].arg if function.node.args.args and function.owner is not None else ""
        nodes = [node for statement in function.node.body for node in ast.walk(statement)]
        stored = {node.id for node in nodes if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store)}
        found: list[list[_Function]] = []
        for node in nodes:
            if isinstance(node, ast.Attribute):
                itself = isinstance(node.value, ast.Name) and node.value.id == own and own not in stored
                found.append(self._standing_for(node.attr, function.owner if itself else None))
            elif isinstance(node, ast.Name) and node.id not in bound | stored:
                found.append(self._standing_for(node.id, None))
            elif isinstance(node, ast.Subscript):
                found += [self._named[name] for name in self._unnamed if name in _SUBSCRIPT]
            if isinstance(node, _OPERATORS) or _builtin(node):
                found += [self._named[name] for name in self._unnamed if name not in _SUBSCRIPT]
                found += [self._standing_for(text, None) for text in _texts(node)]
        return [those for those in found if those]

    def _standing_for(self, name: str, owner: ast.ClassDef | None) -> list[_Function]:
        functions = self._named.get(name, [])
        if owner is not None:
            return [function for function in functions if function.owner is owner]
        return [*functions, *self._built.get(name, [])]


def _builtin(node: ast.AST) -> bool:
    return isinstance(node, ast.Call) and isinstance(node.func, ast.Name)


def _texts(call: ast.AST) -> list[str]:
    """The texts among the arguments of *call*: ``getattr`` takes a name as one."""
    values = [node.value for node in getattr(call, "args", ()) if isinstance(node, ast.Constant)]
    return [value for value in values if isinstance(value, str)]
