"""The code inside a TorchScript archive, judged before torch reads it.

It tells which operators the code names, and whether each is allowed.

``torch.jit.load`` runs code (every class's ``__setstate__``), and a graph may hold operators that write files
or reach other machines. TorchScript's text is a subset of Python's
(torch/csrc/jit/serialization/python_print.cpp writes it, torch/csrc/jit/frontend reads it), so Python's own
parser takes it apart. The two read different languages at the edges; therefore what one might read otherwise
is
refused: other characters than printable ASCII and line feeds, prefixes of strings, continued lines, comments
with types.

Judged are names, not calls: a function is a value in TorchScript too (``f = torch.save`` is legal). A name
after ``torch.`` is an ``aten`` operator, one after ``ops.NAMESPACE.`` that of another namespace; any other
attribute is a method of the archive's own classes or an operator taken as a method (``x.add(y)``), and which
of them is only known with types, so that it has to be allowed as both.
"""

from __future__ import annotations

import ast
import io
import re
import tokenize
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from mnnprep.formats.torch import operators
from mnnprep.formats.torch.script_ending import endless


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


# What TorchScript's own frontend knows beside operators (torch/csrc/jit/frontend/ir_emitter.cpp, its
# environment of globals).
BUILTINS = _words(
    "abs all annotate any awaitable bin bool chr complex dict divmod enumerate float fork format getattr"
    " hasattr hash hex id int isinstance len list map max min oct ord pow print range rangelist reversed"
    " round set sorted str sum tuple unchecked_cast unchecked_unwrap_optional uninitialized zip"
)
# Properties and methods that are no operators by name: of tensors, of enumerations, of the classes of packed
# weights.
ATTRIBUTES = _words(
    "H T mH mT names ndim nbytes shape value name __new__ __init__ __getstate__ __setstate__ __enter__"
    " __exit__ __annotations__ bias dilation groups op output_padding padding stride transpose unpack weight"
    " bit_rate version"
)
_ODD = re.compile(rb"[^\x20-\x7e\n]|\\\n")
_CONSTANT = re.compile(r"c\d+")
MOST_CODE = 1 << 22  # bytes in an archive; the tree that Python makes of a text takes 200 times as many


@dataclass(frozen=True)
class Fault:
    """A part of a program that is not allowed.

    ``place`` is the record and its line, ``what`` the operator or the construct.

    ``endless``: it is not what the code touches, but that it may never end.
    """

    place: str
    what: str
    endless: bool = False


def script_faults(code: Mapping[str, bytes], known: frozenset[str] = frozenset()) -> Iterator[Fault]:
    """Name what isn't allowed in an archive's *code* (text by record), in order.

    *known* are names of operators of the PyTorch that is going to load it: a class's own method of such a
    name must be allowed, too.
    """
    size = sum(map(len, code.values()))
    if size > MOST_CODE:
        yield Fault(next(iter(code)), f"{size} bytes of code in all, more than any model has")
        return
    trees: dict[str, ast.Module] = {}
    for record, text in code.items():
        try:
            trees[record] = _parsed(text)
        except (SyntaxError, ValueError, RecursionError, MemoryError, tokenize.TokenError) as error:
            line = getattr(error, "lineno", None) or 1
            yield Fault(f"{record}:{line}", f"code that isn't as torch writes it ({error})")
    own = {name for tree in trees.values() for name in _declared(tree)}
    judge = _Judge(own, operators.refused_methods() | (known - operators.allowed_methods()))
    for record, tree in trees.items():
        for line, what in judge.faults(tree):
            yield Fault(f"{record}:{line}", what)
    for record, line, what in endless(trees):
        yield Fault(f"{record}:{line}", what, endless=True)


def _parsed(text: bytes) -> ast.Module:
    if odd := _ODD.search(text):
        raise ValueError(f"the bytes {odd[0]!r} at {odd.start()}")
    source = text.decode("ascii")
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type == tokenize.STRING and token.string[0] not in "\"'":
            raise SyntaxError(f"a string with a prefix: {token.string[:20]}", ("", token.start[0], 0, ""))
        if token.type == tokenize.COMMENT and "type:" in token.string:
            raise SyntaxError("a comment with types", ("", token.start[0], 0, ""))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of escapes that Python doesn't know
        return ast.parse(source)


def _declared(tree: ast.Module) -> Iterator[str]:
    """The names of classes, functions, methods and fields that a file declares."""
    for node in ast.walk(tree):
        if isinstance(node, ast.ClassDef | ast.FunctionDef):
            yield node.name
        if isinstance(node, ast.ClassDef):
            for statement in node.body:
                if isinstance(statement, ast.AnnAssign) and isinstance(statement.target, ast.Name):
                    yield statement.target.id
                elif isinstance(statement, ast.Assign):
                    yield from (name for target in statement.targets for name in _field(target))


def _field(target: ast.expr) -> Iterator[str]:
    """The field that ``NAME = ...`` or ``__annotations__["NAME"] = ...`` declares."""
    if isinstance(target, ast.Name):
        yield target.id
    elif (
        isinstance(target, ast.Subscript)
        and isinstance(target.slice, ast.Constant)
        and isinstance(target.slice.value, str)
    ):
        yield target.slice.value


class _Judge:
    def __init__(self, own: set[str], refused: frozenset[str]) -> None:
        self._own = own
        self._refused = refused

    def faults(self, tree: ast.Module) -> Iterator[tuple[int, str]]:
        inner: set[int] = set()  # the beginnings of chains that are judged already
        bound = _bound(tree)
        for node in ast.walk(tree):
            what = ""
            if isinstance(node, ast.Attribute) and id(node) not in inner:
                chain = _chain(node, inner)
                what = self._chain_fault(chain) if chain else self._attribute_fault(node.attr)
            elif (
                isinstance(node, ast.Name)
                and id(node) not in inner
                and node.id in ("torch", "ops", "__torch__")
            ):
                what = f"the namespace {node.id} as a value"
            elif isinstance(node, ast.Call):
                what = self._call_fault(node, bound)
            elif isinstance(
                node,
                ast.Import | ast.ImportFrom | ast.Lambda | ast.Await | ast.AsyncFunctionDef | ast.JoinedStr,
            ):
                what = f"a Python {type(node).__name__}"
            if what:
                yield getattr(node, "lineno", 1), what

    def _chain_fault(self, chain: list[str]) -> str:
        """Say what is wrong with ``a.b.c``."""
        root, *names = chain
        if root == "torch":
            return "" if f"aten::{names[0]}" in operators.allowed() else f"the operator aten::{names[0]}"
        if root == "ops":
            name = "::".join(names[:2])
            return "" if name in operators.allowed() else f"the operator {name}"
        if root == "__torch__" and names[:2] == ["torch", "classes"]:
            name = ".".join(names[2:4])
            return "" if name in operators.CLASSES else f"the class torch.classes.{name}"
        if root == "__torch__" and names == ["torch"]:
            return "the namespace __torch__.torch as a value"
        if (
            root == "__torch__"
        ):  # the archive's own classes and functions: their names are found in its code alone
            return ""
        if root == "CONSTANTS":
            return "" if len(names) == 1 and _CONSTANT.fullmatch(names[0]) else f"CONSTANTS.{'.'.join(names)}"
        return next(filter(None, map(self._attribute_fault, names)), "")

    def _attribute_fault(self, name: str) -> str:
        if name in self._refused:
            return f"the operator aten::{name}"
        if name in self._own or name in ATTRIBUTES or name in operators.allowed_methods():
            return ""
        return f"the operator or method {name}"

    def _call_fault(self, call: ast.Call, bound: set[str]) -> str:
        function = call.func
        if isinstance(function, ast.Attribute):
            return ""  # judged as an attribute
        if not isinstance(function, ast.Name):
            return "a call of something other than a name"
        if function.id == "getattr":
            name = call.args[1] if len(call.args) > 1 else None
            if not (isinstance(name, ast.Constant) and isinstance(name.value, str)):
                return "getattr of a name that isn't written out"
            return self._attribute_fault(name.value)
        return "" if function.id in BUILTINS or function.id in bound else f"a call of {function.id}"


def _chain(node: ast.Attribute, inner: set[int]) -> list[str]:
    """Return the names of ``a.b.c``, empty if it doesn't begin with a name.

    Its inner nodes are noted in *inner*.
    """
    names = [node.attr]
    value = node.value
    nodes = [id(node)]
    while isinstance(value, ast.Attribute):
        names.append(value.attr)
        nodes.append(id(value))
        value = value.value
    if not isinstance(value, ast.Name):
        return []
    inner.update([*nodes, id(value)])
    return [value.id, *reversed(names)]


def _bound(tree: ast.Module) -> set[str]:
    """The names that a file gives values to: functions, variables, parameters."""
    names: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            names.add(node.name)
        elif isinstance(node, ast.arg):
            names.add(node.arg)
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            names.add(node.id)
    return names
