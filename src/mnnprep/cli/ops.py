"""``mnnprep ops``."""

from __future__ import annotations

import click

from mnnprep.cli.main import echo_json, say


@click.command("ops")
@click.argument("operator", default="")
@click.option(
    "--measure",
    is_flag=True,
    help="Run ONNX's own test cases through this MNN (about ten minutes on two cores).",
)
@click.option(
    "--engine", default="", metavar="VERSION", help="Another MNN, as 3.2.0 (default: the installed one)."
)
@click.option("--jobs", default=2, metavar="N", type=click.IntRange(1), help="Cases measured at once.  [2]")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document on stdout.")
def command(operator: str, measure: bool, engine: str, jobs: int, as_json: bool) -> int:
    """Show which operators MNN reads and what it does with ONNX's own test cases.

    The cases run as they are and after repairs.

    With OPERATOR, that one alone, by opset and dtype. A measurement that is interrupted goes on where it was.
    """
    from mnnprep.commands.ops.measuring import measure_and_keep
    from mnnprep.conformance.table import load_table
    from mnnprep.errors import RefusedError, UsageError
    from mnnprep.model.target import require_engine

    require_engine(engine)
    if measure:
        measure_and_keep(jobs=jobs, tell=say, engine=engine)
    table = load_table(engine)
    if table is None:
        asked = f"MNN {engine}" if engine else "the MNN that is installed here"
        raise RefusedError(
            f"there is no table of operators for {asked}",
            seen="none ships with mnnprep, and none was measured",
            next=f"measure it: mnnprep ops --measure{f' --engine {engine}' if engine else ''}",
        )
    known = {row.operator for row in table.rows} | {
        name for names in table.frontends.values() for name in names
    }
    if operator and operator not in known:
        raise UsageError(
            "no frontend and no test case has this operator",
            seen=operator,
            next="see the names with mnnprep ops",
        )
    if as_json:
        import msgspec

        rows = [row for row in table.rows if not operator or row.operator == operator]
        echo_json(msgspec.structs.replace(table, rows=rows))
    else:
        from rich.console import Console

        from mnnprep.cli.render_ops import show_operator, show_table

        if operator:
            show_operator(Console(), table, operator)
        else:
            show_table(Console(), table)
    return 0
