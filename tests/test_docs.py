"""Every file, symbol and link that the documentation names is there."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "src/mnnprep"
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md")])
MADE = {"build", "dist"}  # by make: there only when somebody ran it
TOP = {path.name for folder in (ROOT, PACKAGE) for path in folder.iterdir()} - MADE

CODE = re.compile(r"`([^`\n]+)`")
EXAMPLES = ("file.py", "path.py", "boxes.py", "model.py", "replay.py")  # files of the reader's
PLACE = re.compile(r"(?P<path>\.?[\w-][\w./-]*/[\w./-]*|[\w-]+\.py)(?::(?P<symbol>[A-Za-z_][\w.]*))?")
LINK = re.compile(r"\]\((?P<path>[^)#\s]*)(?:#(?P<anchor>[^)\s]+))?\)")


def symbols(path: Path) -> set[str]:
    """The names that a module defines at its top level, and those of its classes as ``Class.name``."""
    found: set[str] = set()

    def collect(body: list[ast.stmt], prefix: str) -> None:
        for node in body:
            if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
                found.add(prefix + node.name)
                if isinstance(node, ast.ClassDef):
                    collect(node.body, f"{node.name}.")
            elif isinstance(node, ast.Assign):
                found.update(prefix + t.id for t in node.targets if isinstance(t, ast.Name))
            elif isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
                found.add(prefix + node.target.id)

    collect(ast.parse(path.read_text(encoding="utf-8")).body, "")
    return found


def anchors(page: Path) -> set[str]:
    """The anchors of a page: its headings as GitHub writes them, and those it sets itself."""
    text = page.read_text(encoding="utf-8")
    headings = re.findall(r"^#+ (.*)$", text, re.MULTILINE)
    made = {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}
    return made | set(re.findall(r'id="([^"]+)"', text))


def places(page: Path) -> list[tuple[str, str]]:
    """The paths of this repository that a page names in code, each with its symbol or none.

    A path with a part to fill in (``repair/<family>/``) stands for what comes before it.
    """
    found = []
    for quoted in CODE.findall(page.read_text(encoding="utf-8")):
        for word in quoted.split():
            match = PLACE.fullmatch(word.partition("<")[0])
            if match is None or word.startswith(EXAMPLES):
                continue
            path = match["path"]
            if path.partition("/")[0] in TOP or path.endswith(".py") or "<" in word:
                found.append((path, match["symbol"] or ""))
    return found


def modules(page: Path) -> set[str]:
    """The dotted names of this package that a page names after ``python -m`` or in code."""
    return set(re.findall(r"`(?:python -m )?(mnnprep\.[a-z_.]+)`", page.read_text(encoding="utf-8")))


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_the_files_and_symbols_that_a_page_names_are_there(page: Path) -> None:
    for name, symbol in places(page):
        path = next(
            (base / name for base in (ROOT, PACKAGE, ROOT / "benchmarks") if (base / name).exists()), None
        )
        assert path is not None, f"{page.name} names {name}, which is not there"
        if symbol:
            assert symbol in symbols(path), f"{page.name} names {name}:{symbol}, which is not there"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_the_modules_that_a_page_names_are_there(page: Path) -> None:
    for name in modules(page):
        *parts, last = name.split(".")[1:]
        package = PACKAGE.joinpath(*parts)
        if (package / last).is_dir() or (package / f"{last}.py").exists():
            continue
        file = package / "__init__.py" if package.is_dir() else package.with_suffix(".py")
        assert last in file.read_text(encoding="utf-8"), f"{page.name} names {name}, which is not there"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_the_links_of_a_page_lead_somewhere(page: Path) -> None:
    for match in LINK.finditer(page.read_text(encoding="utf-8")):
        if "://" in match["path"]:
            continue
        target = page.parent / match["path"] if match["path"] else page
        assert target.exists(), f"{page.name} links to {match['path']}, which is not there"
        if match["anchor"]:
            assert match["anchor"] in anchors(target), f"{page.name}: no {match['anchor']} in {target.name}"


def test_the_layers_that_the_page_names_are_those_of_the_contract() -> None:
    contract = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    layers = re.search(r"^layers = \[(.*?)^\]", contract, re.MULTILINE | re.DOTALL)
    assert layers is not None
    wanted = [name for name in re.findall(r"\w+", layers[1]) if not name.startswith("_")]
    text = (ROOT / "docs/architecture.md").read_text(encoding="utf-8")
    table = text.partition("## Layers")[2].partition("\n## ")[0]
    rows = re.findall(r"^\| (`[^|]*) \|", table, re.MULTILINE)
    assert [name for row in rows for name in CODE.findall(row)] == wanted


def test_a_place_that_is_not_there_is_found() -> None:
    assert "Tolerance" in symbols(PACKAGE / "comparison/tolerance.py")
    assert "Row.remedy" in symbols(PACKAGE / "evidence/row.py")
    assert "Gone" not in symbols(PACKAGE / "evidence/row.py")
    named = places(ROOT / "docs/architecture.md")
    assert ("formats/backend.py", "SourceSteps.attempts") in named
