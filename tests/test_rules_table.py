"""The table of the rules: a rule is one file, named as it is, one row, and one test."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import get_args

import pytest

import mnnprep
from mnnprep.repair.rule import Severity
from mnnprep.repair.table import ROWS, RULES

PACKAGE = Path(mnnprep.__file__).parent
RULES_DIR = PACKAGE / "repair"
TESTS = Path(__file__).parent
SHARED = {"support", "low_hazards"}  # what the rules are made of; what a measured run shows
# The finding of the same name in files of the other formats.
NAMED_TOO = {("unsupported_operator", "commands/check.py")}


@cache
def texts(root: Path) -> list[tuple[Path, str]]:
    """Every module under *root* with its text."""
    return [(path, path.read_text(encoding="utf-8")) for path in sorted(root.rglob("*.py"))]


def rule_files() -> list[Path]:
    """The files of the families, which hold nothing but rules."""
    families = [path for path in RULES_DIR.iterdir() if path.is_dir() and path.name not in SHARED]
    return sorted(path for family in families for path in family.glob("*.py") if path.stem != "__init__")


def row_of(path: Path) -> str:
    return f"{path.parent.name}.{path.stem}"


def test_a_file_is_named_as_its_rule() -> None:
    found = {row: rule.name for row, rule in zip(ROWS, RULES, strict=True)}
    assert {row: row.split(".")[1].replace("_", "-") for row in ROWS} == found


def test_each_file_of_a_family_is_one_row() -> None:
    assert sorted(map(row_of, rule_files())) == sorted(ROWS)


def test_no_family_is_of_one_rule() -> None:
    families = [row.split(".")[0] for row in ROWS]
    assert min(map(families.count, set(families))) > 1


@pytest.mark.parametrize("path", rule_files(), ids=row_of)
def test_a_rule_is_known_to_its_file_its_row_and_its_tests_alone(path: Path) -> None:
    """Nothing else of the package names it, so that a new one needs no other line."""
    name = path.stem.replace("_", "-")
    words = {f'"{row_of(path)}"'} | ({f'"{name}"'} if name not in get_args(Severity) else set())
    naming = {
        str(file.relative_to(PACKAGE)): sum(map(text.count, words))
        for file, text in texts(PACKAGE)
        if file != path and any(word in text for word in words)
    }
    others = {file: count for file, count in naming.items() if (path.stem, file) not in NAMED_TOO}
    assert others == {"repair/table.py": 1}
    assert any(f'"{name}"' in text for _, text in texts(TESTS))
