"""``mnnprep check``."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from mnnprep.cli.main import echo_json
from mnnprep.cli.options import chosen, options, reading_memory, reading_timeout
from mnnprep.model.derived_options import CHECK
from mnnprep.model.options import request_of

if TYPE_CHECKING:
    from mnnprep.commands.check_report import CheckReport


@click.command("check")
@click.argument("model")
@click.option(
    "--sarif",
    default="",
    metavar="FILE",
    help="Write the findings to FILE as SARIF 2.1.0, for code-review pages.",
)
@click.option(
    "--rules-only",
    is_flag=True,
    help="Use the hazard rules alone, without hints from the measured table of operators.",
)
@options(CHECK)
@reading_timeout
@reading_memory
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document on stdout.")
def command(
    model: str, sarif: str, rules_only: bool, timeout: float, memory: str, as_json: bool, **given: object
) -> int:
    """List what MNN will refuse, crash on or get wrong in MODEL, and what to do; nothing of it is executed.

    With --target arm64:low an ONNX graph is run on inputs made for it (or --samples), in a confined worker
    with limits, to see which of its numbers half precision can't hold.

    Exit code 1 when something was found that is wrong, a crash or a refusal; 0 when at most values are
    narrowed.
    """
    from mnnprep.commands.check import check_file
    from mnnprep.model.request import Limits, parse_size

    request = request_of(model, chosen(CHECK, given), CHECK)
    report = check_file(
        model,
        rules_only=rules_only,
        limits=Limits(timeout=timeout, memory=parse_size(memory or "0")),
        targets=request.targets,
        wants=request.wants,
    )
    if sarif:
        _write(sarif, report)
    if as_json:
        echo_json(report)
    else:
        from rich.console import Console

        from mnnprep.cli.render_check import show_check

        show_check(Console(), report)
    return 0 if report.clean else 1


def _write(target: str, report: CheckReport) -> None:
    from mnnprep.cli.sarif import document
    from mnnprep.errors import UsageError
    from mnnprep.model.files import atomic_write, canonical_json

    try:
        with atomic_write(target) as file:
            file.write(canonical_json(document(report)))
    except OSError as error:
        raise UsageError(
            "the SARIF file can't be written",
            seen=f"{target}: {error.strerror}",
            next="give a file in an existing directory",
        ) from error
