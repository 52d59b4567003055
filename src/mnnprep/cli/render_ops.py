"""The terminal's view of the table of operators."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mnnprep.cli.tables import grid, section, word

if TYPE_CHECKING:
    from rich.console import Console

    from mnnprep.conformance.table import OperatorTable

HEAD = ["operator", "cases", "right", "repaired", "the others"]


def show_table(console: Console, table: OperatorTable) -> None:
    """Every frontend with the number of its operators; ONNX's with their cases."""
    from mnnprep.conformance.page import scores, totals

    console.print(
        word(f"MNN {table.mnn} on {table.machine}, measured with the cases of onnx {table.onnx}", "dim"),
        soft_wrap=True,
    )
    section(
        console,
        "frontends",
        grid(["", ">"], [(name, str(len(names))) for name, names in sorted(table.frontends.items())]),
    )
    found = scores(table)
    if found:
        rows = [(variant, *map(str, totals(table, variant)), "") for variant in ("fed", "frozen")]
        section(console, "ONNX's own cases", grid(["", ">", ">", ">", ""], rows, HEAD))
        listed = [
            (
                s.operator + ("" if s.read else " *"),
                str(s.cases),
                str(s.right),
                str(s.repaired),
                _counts(s.others),
            )
            for s in found
        ]
        section(
            console,
            "by operator (*: the frontend does not list it)",
            grid(["", ">", ">", ">", ""], listed, HEAD),
        )


def show_operator(console: Console, table: OperatorTable, operator: str) -> None:
    """One operator: the frontends that read it, and its cases by opset and dtype."""
    readers = [name for name, names in sorted(table.frontends.items()) if operator in names]
    console.print(
        word(f"{operator}: read by {', '.join(readers) or 'no frontend'} of MNN {table.mnn}"),
        soft_wrap=True,
    )
    rows = [
        (
            row.variant + (", function body" if row.expanded else ""),
            str(row.opset),
            row.dtype,
            _counts(row.raw),
            _counts(row.repaired),
        )
        for row in table.rows
        if row.operator == operator
    ]
    if rows:
        section(
            console,
            "ONNX's own cases",
            grid(["", ">", "", "", ""], rows, ["cases", "opset", "dtype", "as they are", "after repairs"]),
        )


def _counts(counts: dict[str, int]) -> str:
    return ", ".join(f"{count} {status}" for status, count in counts.items())
