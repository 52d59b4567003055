"""Tests share through `support` and `conftest.py`: none imports another."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
FILES = sorted(path for name in ("tests", "evaluation", "benchmarks") for path in (ROOT / name).rglob("*.py"))


def imported(tree: ast.AST) -> Iterator[str]:
    """Every module that is imported, in functions too, and every name that is imported from one."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield from (f"{node.module or ''}.{alias.name}" for alias in node.names)


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_no_module_imports_a_test(path: Path) -> None:
    modules = {part for name in imported(ast.parse(path.read_text())) for part in name.split(".")[:2]}
    assert not modules & {test.stem for test in (ROOT / "tests").glob("test_*.py")}


def test_one_file_sets_how_hypothesis_searches() -> None:
    loading = [p.name for p in (ROOT / "tests").rglob("*.py") if ".load_profile(" in p.read_text()]
    assert sorted(loading) == ["conftest.py", "test_layout.py"]
