"""``mnnprep compare``."""

from __future__ import annotations

import time

import click

from mnnprep.cli.main import echo_json, say
from mnnprep.cli.options import chosen, options
from mnnprep.model.derived_options import COMPARE
from mnnprep.model.options import request_of


@click.command("compare")
@click.argument("first")
@click.argument("second")
@options(COMPARE)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document on stdout.")
def command(first: str, second: str, as_json: bool, **given: object) -> int:
    """Run SECOND on the inputs made for FIRST and compare every output.

    A factory's weights: FACTORY+CHECKPOINT.

    \b
    mnnprep compare saved_model_dir model.tflite
    """
    from mnnprep.commands.compare import compare

    started = time.monotonic()
    request = request_of("", chosen(COMPARE, given), COMPARE)
    found = compare(
        first,
        second,
        wants=request.wants,
        limits=request.limits,
        trust=request.trust,
        signature=request.signature,
        metrics=request.metrics,
        outputs=request.outputs,
        tell=lambda text: say(f"{time.monotonic() - started:6.1f} s  {text}"),
    )
    if as_json:
        echo_json(found)
    else:
        from rich.console import Console

        from mnnprep.cli.render import show_comparison

        show_comparison(Console(), found)
    return found.verdict.exit_code
