"""Count what makes the code easy or hard to carry on, and hold it against limits.

    python -m evaluation.structure                # figure, value, limit; exit status 1 if one is exceeded
    python -m evaluation.structure --list FIGURE  # the places behind one figure

Counted in src/ from the syntax tree: import cycles (imports inside functions included) and imports that point
upward between the layers of pyproject.toml, annotations that are ``Any``, long lines, modules and functions,
branching (McCabe's number, by ruff), and public functions without a docstring.
"""

from __future__ import annotations

import argparse
import ast
import json
import subprocess
import sys
import tomllib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = ROOT / "src" / "mnnprep"
COLUMNS, MODULE_LINES, FUNCTION_LINES, COMPLEXITY = 110, 400, 60, 15


@dataclass(frozen=True)
class Module:
    """A source file: its dotted name, its text and its syntax tree."""

    name: str
    path: Path
    text: str
    tree: ast.Module

    def at(self, line: int) -> str:
        return f"{self.path.relative_to(ROOT)}:{line}"


def modules() -> list[Module]:
    """Every module of the package, by name."""
    found = []
    for path in sorted(PACKAGE.rglob("*.py")):
        parts = path.relative_to(PACKAGE.parent).with_suffix("").parts
        name = ".".join(parts[:-1] if parts[-1] == "__init__" else parts)
        text = path.read_text(encoding="utf-8")
        found.append(Module(name, path, text, ast.parse(text)))
    return found


def imports(module: Module, names: set[str]) -> set[str]:
    """The modules of the package that *module* imports anywhere, those imported only for type checking left
    out.
    """
    hidden = {
        id(node)
        for test in ast.walk(module.tree)
        if isinstance(test, ast.If) and ast.unparse(test.test).endswith("TYPE_CHECKING")
        for body in test.body
        for node in ast.walk(body)
    }
    found: set[str] = set()
    for node in ast.walk(module.tree):
        if id(node) in hidden:
            continue
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found |= {
                f"{node.module}.{alias.name}" if f"{node.module}.{alias.name}" in names else node.module
                for alias in node.names
            }
    return (found & names) - {module.name}


def cycles(graph: dict[str, set[str]]) -> list[list[str]]:
    """The strongly connected components of more than one module (Tarjan's algorithm)."""
    index: dict[str, int] = {}
    low: dict[str, int] = {}
    stack: list[str] = []
    found: list[list[str]] = []

    def visit(node: str) -> None:
        index[node] = low[node] = len(index)
        stack.append(node)
        for target in sorted(graph[node]):
            if target not in index:
                visit(target)
            if target in stack:
                low[node] = min(low[node], low[target])
        if low[node] == index[node]:
            component = stack[stack.index(node) :]
            del stack[stack.index(node) :]
            if len(component) > 1:
                found.append(sorted(component))

    sys.setrecursionlimit(10_000)
    for node in sorted(graph):
        if node not in index:
            visit(node)
    return found


def layers() -> dict[str, int]:
    """The rank of every top-level part of the package, the highest layer first, as the import contract states
    it.
    """
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    rows = settings["tool"]["importlinter"]["contracts"][0]["layers"]
    return {part.strip(" ()"): rank for rank, row in enumerate(rows) for part in row.split("|")}


def upward(graph: dict[str, set[str]]) -> list[str]:
    """Imports from a lower layer to a higher one."""
    ranks = layers()

    def rank(name: str) -> int | None:
        return ranks.get(name.split(".")[1]) if "." in name else None

    found = []
    for source, targets in graph.items():
        for target in sorted(targets):
            ends = rank(source), rank(target)
            if ends[0] is not None and ends[1] is not None and ends[0] > ends[1]:
                found.append(f"{source} imports {target}")
    return found


def functions(module: Module) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef]:
    return (
        node for node in ast.walk(module.tree) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
    )


def annotations(module: Module) -> Iterator[ast.expr]:
    """Every annotation of a parameter, a result or a variable."""
    for node in ast.walk(module.tree):
        if isinstance(node, ast.arg) and node.annotation:
            yield node.annotation
        elif isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.returns:
            yield node.returns
        elif isinstance(node, ast.AnnAssign):
            yield node.annotation


def undocumented(module: Module) -> tuple[list[str], int]:
    """The public functions and methods of public classes without a docstring, and how many there are in
    all.
    """
    holders: list[ast.Module | ast.ClassDef] = [module.tree]
    holders += [
        node for node in module.tree.body if isinstance(node, ast.ClassDef) and not node.name.startswith("_")
    ]
    public = [
        n for h in holders for n in h.body if isinstance(n, ast.FunctionDef) and not n.name.startswith("_")
    ]
    return [f"{module.at(n.lineno)} {n.name}" for n in public if not ast.get_docstring(n)], len(public)


def branching() -> list[str]:
    """The functions whose McCabe number is above the limit, as ruff counts it."""
    command = [
        sys.executable,
        "-m",
        "ruff",
        "check",
        "--isolated",
        "--select",
        "C901",
        "--output-format",
        "json",
        str(PACKAGE),
    ]
    command += ["--config", f"lint.mccabe.max-complexity={COMPLEXITY}"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    return [
        f"{row['filename'].removeprefix(f'{ROOT}/')}:{row['location']['row']} {row['message']}"
        for row in json.loads(done.stdout)
    ]


def measure() -> dict[str, tuple[list[str], float, float, str]]:
    """Each figure by name: the places, the value, the limit, the unit."""
    found = modules()
    names = {module.name for module in found}
    graph = {module.name: imports(module, names) for module in found}
    every = [(module, note) for module in found for note in annotations(module)]
    loose = [m.at(n.lineno) for m, n in every if isinstance(n, ast.Name) and n.id == "Any"]
    bare, public = [], 0
    for module in found:
        places, count = undocumented(module)
        bare, public = bare + places, public + count
    long = [m.at(i) for m in found for i, line in enumerate(m.text.splitlines(), 1) if len(line) > COLUMNS]
    skipped = [m.at(i) for m in found for i, line in enumerate(m.text.splitlines(), 1) if "fmt: skip" in line]
    large = [
        f"{m.at(1)} {len(m.text.splitlines())}" for m in found if len(m.text.splitlines()) > MODULE_LINES
    ]
    tall = [
        f"{m.at(f.lineno)} {f.name} {(f.end_lineno or 0) - f.lineno + 1}"
        for m in found
        for f in functions(m)
        if (f.end_lineno or 0) - f.lineno + 1 > FUNCTION_LINES
    ]
    circles, climbs, knots = [", ".join(c) for c in cycles(graph)], upward(graph), branching()
    return {
        "cycles": (circles, len(circles), 0, ""),
        "upward": (climbs, len(climbs), 0, ""),
        "any": (loose, 100 * len(loose) / len(every), 2, "%"),
        "lines": (long, len(long), 0, ""),
        "skips": (skipped, len(skipped), 5, ""),
        "modules": (large, len(large), 0, ""),
        "functions": (tall, len(tall), 0, ""),
        "complexity": (knots, len(knots), 10, ""),
        "docstrings": (bare, 100 * (1 - len(bare) / public), 95, "%"),
    }


MEANING = {
    "cycles": "import cycles, imports in functions included",
    "upward": "imports from a lower layer to a higher one",
    "any": "annotations that are exactly Any",
    "lines": f"lines over {COLUMNS} columns",
    "skips": "lines that switch the formatter off",
    "modules": f"modules over {MODULE_LINES} lines",
    "functions": f"functions over {FUNCTION_LINES} lines",
    "complexity": f"functions with a McCabe number over {COMPLEXITY}",
    "docstrings": "public functions with a docstring",
}
AT_LEAST = {"docstrings"}  # the limit of these is a least value


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument(
        "--list",
        choices=MEANING,
        metavar="FIGURE",
        help=f"show the places behind one of: {', '.join(MEANING)}",
    )
    arguments = parser.parse_args()
    figures = measure()
    if arguments.list:
        print("\n".join(figures[arguments.list][0]))
        return 0
    exceeded = 0
    for name, (_, value, limit, unit) in figures.items():
        within: Callable[[float, float], bool] = float.__ge__ if name in AT_LEAST else float.__le__
        met = within(float(value), float(limit))
        exceeded += not met
        sign = "at least" if name in AT_LEAST else "at most"
        print(
            f"{name:<11} {value:7.1f}{unit:1} {sign} {limit:g}{unit} {'' if met else 'EXCEEDED':<9}"
            f" {MEANING[name]}"
        )
    return int(exceeded > 0)


if __name__ == "__main__":
    sys.exit(main())
