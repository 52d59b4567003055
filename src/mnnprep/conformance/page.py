"""The table of operators, summed up: by operator for the terminal, and as the page of the documentation."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

import msgspec

from mnnprep.conformance.messages import STATUSES
from mnnprep.conformance.table import OperatorTable, Row

SEVERAL = "(several operators)"


class Score(msgspec.Struct, frozen=True, kw_only=True):
    """An operator's score: its ``cases``, and those that MNN gets ``right`` or ``repaired``.

    ``right`` counts them as they are. The rest says what becomes of the others.
    """

    operator: str
    read: bool
    cases: int
    right: int
    repaired: int
    others: dict[str, int]


def scores(table: OperatorTable, operator: str = "") -> list[Score]:
    """Return one score per operator, of the cases that hold the operator itself.

    Those that hold its function body don't count. With *operator* only its own.
    """
    rows: dict[str, list[Row]] = {}
    for row in table.rows:
        if not row.expanded and (not operator or row.operator == operator):
            rows.setdefault(row.operator or SEVERAL, []).append(row)
    read = frozenset(table.frontends.get("ONNX", ()))
    return [score(name, name in read, group) for name, group in sorted(rows.items())]


def score(operator: str, read: bool, rows: Iterable[Row]) -> Score:
    """Add up the rows of one operator; *read* tells whether MNN's frontend has it."""
    raw: Counter[str] = Counter()
    repaired: Counter[str] = Counter()
    for row in rows:
        raw.update(row.raw)
        repaired.update(row.repaired)
    others: dict[str, int] = {
        status: repaired[status] for status in STATUSES if status != "right" and repaired[status]
    }
    return Score(
        operator=operator,
        read=read,
        cases=raw.total(),
        right=raw["right"],
        repaired=repaired["right"],
        others=others,
    )


def totals(table: OperatorTable, variant: str) -> tuple[int, int, int]:
    """All cases of a variant, expanded ones too: how many, right as they are, right repaired."""
    summed = score("", True, [row for row in table.rows if row.variant == variant])
    return summed.cases, summed.right, summed.repaired


def page(table: OperatorTable) -> str:
    """docs/operators.md: the same table gives the same text."""
    count = len(table.frontends.get("ONNX", ()))
    lines = [
        "# Operators",
        "",
        (
            f"What MNN {table.mnn} on {table.machine} does with the {count} operators that its ONNX frontend"
            " reads, measured on ONNX's own test cases"
        ),
        (
            f"(onnx {table.onnx}): as they are, and after mnnprep's repairs. Every case runs in a process of"
            " its own, twice, the second time in dirty"
        ),
        (
            "memory, and an oracle compares with the outputs that the case brings along. `fed`: every input"
            " is fed; `frozen`: every input but the"
        ),
        "first is a constant, as in real models.",
        "",
        (
            "This page is generated (`python -m evaluation.operator_table`). `mnnprep ops --measure` measures"
            " the installed MNN; `mnnprep ops NAME`"
        ),
        "shows an operator by opset and dtype.",
        "",
        "| cases | all | right | right after repairs |",
        "| --- | ---: | ---: | ---: |",
    ]
    for variant in ("fed", "frozen"):
        cases, right, repaired = totals(table, variant)
        lines.append(f"| {variant} | {cases} | {right} | {repaired} |")
    lines += [
        "",
        "## ONNX, by operator",
        "",
        "| operator | cases | right | right after repairs | the others |",
        "| --- | ---: | ---: | ---: | --- |",
    ]
    for found in scores(table):
        others = ", ".join(f"{count} {status}" for status, count in found.others.items())
        name = found.operator if found.read or found.operator == SEVERAL else f"{found.operator} (not read)"
        lines.append(f"| {name} | {found.cases} | {found.right} | {found.repaired} | {others} |")
    lines += ["", "## The other frontends", "", "Listed by the converter itself; not measured here.", ""]
    for frontend in sorted(set(table.frontends) - {"ONNX"}):
        lines += [
            f"**{frontend}** ({len(table.frontends[frontend])}): {', '.join(table.frontends[frontend])}",
            "",
        ]
    return "\n".join(lines).rstrip() + "\n"
