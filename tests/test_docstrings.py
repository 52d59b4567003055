"""The references in docstrings lead somewhere: a name that was moved or renamed is found here."""

from __future__ import annotations

import ast
import builtins
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

import mnnprep

SOURCES = Path(mnnprep.__file__).parent
REFERENCE = re.compile(r":(mod|class|func|meth|data|attr):`~?([^`]*)`")
ELSEWHERE = ("torch",)
Scope = dict[str, "Scope"]


def module_name(path: Path) -> str:
    parts = path.relative_to(SOURCES.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def definitions(body: list[ast.stmt]) -> Scope:
    """The names that *body* defines, classes with those in them, and those that it imports."""
    found: Scope = {}
    for statement in body:
        if isinstance(statement, ast.ClassDef):
            found[statement.name] = definitions(statement.body)
        elif isinstance(statement, ast.FunctionDef | ast.AsyncFunctionDef):
            found[statement.name] = {}
        elif isinstance(statement, ast.Assign | ast.AnnAssign):
            targets = statement.targets if isinstance(statement, ast.Assign) else [statement.target]
            found.update({target.id: {} for target in targets if isinstance(target, ast.Name)})
        elif isinstance(statement, ast.Import | ast.ImportFrom):
            found.update({alias.asname or alias.name: {} for alias in statement.names})
        elif isinstance(statement, ast.If | ast.Try):
            found.update(definitions(statement.body))
    return found


MODULES = {module_name(path): ast.parse(path.read_text()) for path in sorted(SOURCES.rglob("*.py"))}
NAMES = {name: definitions(tree.body) for name, tree in MODULES.items()}


def has(scope: Scope, dotted: str) -> bool:
    name, _, rest = dotted.partition(".")
    return name in scope and (not rest or has(scope[name], rest))


def resolves(reference: str, module: str, classes: list[str]) -> bool:
    """Whether *reference*, in a docstring of *module* inside *classes*, is a module or a name of one."""
    if hasattr(builtins, reference) or reference.partition(".")[0] in ELSEWHERE:
        return True
    if not reference.startswith("mnnprep."):
        inside = [".".join(classes[:depth]) for depth in range(len(classes), 0, -1)]
        return any(has(NAMES[module], f"{c}.{reference}") for c in inside) or has(NAMES[module], reference)
    parts = reference.split(".")
    return any(
        ".".join(parts[:cut]) in NAMES
        and (cut == len(parts) or has(NAMES[".".join(parts[:cut])], ".".join(parts[cut:])))
        for cut in range(len(parts), 0, -1)
    )


def docstrings(node: ast.AST, classes: list[str]) -> Iterator[tuple[str, list[str]]]:
    if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
        yield ast.get_docstring(node) or "", classes
    for child in ast.iter_child_nodes(node):
        yield from docstrings(child, [*classes, child.name] if isinstance(child, ast.ClassDef) else classes)


def broken(module: str) -> list[str]:
    return [
        f":{kind}:`{reference}`"
        for text, classes in docstrings(MODULES[module], [])
        for kind, reference in REFERENCE.findall(text)
        if not resolves(re.sub(r"\s+", "", reference), module, classes)
    ]


@pytest.mark.parametrize("module", MODULES)
def test_references_lead_to_what_is_there(module: str) -> None:
    assert broken(module) == []


def test_a_reference_to_what_is_not_there_is_found() -> None:
    assert resolves("mnnprep.errors.UsageError", "mnnprep.api", [])
    assert resolves("mnnprep.errors", "mnnprep.api", [])
    assert resolves("submit", "mnnprep.workers.pool", ["Workers"])
    assert not resolves("mnnprep.errors.NoSuchError", "mnnprep.api", [])
    assert not resolves("mnnprep.no_such_module", "mnnprep.api", [])
    assert not resolves("no_such_method", "mnnprep.workers.pool", ["Workers"])
