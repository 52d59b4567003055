"""``mnnprep bisect``."""

from __future__ import annotations

import time

import click

from mnnprep.cli.main import echo_json, say
from mnnprep.cli.options import step_timeout


@click.command("bisect")
@click.argument("bundle")
@click.option(
    "--case",
    type=int,
    default=None,
    metavar="N",
    help="Look at this stored case only (default: all that fail).",
)
@click.option(
    "-o",
    "--output",
    default="",
    metavar="DIR",
    help="Write the smallest piece that shows it to this new directory.",
)
@click.option(
    "--mnnconvert",
    default="",
    metavar="PATH",
    help="The MNNConvert that the bundle was made with, if not the package's.",
)
@click.option("--target", default="", metavar="TARGET", help="Run MNN there, as arm64:low (default: here).")
@step_timeout
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document on stdout.")
def command(
    bundle: str,
    case: int | None,
    output: str,
    mnnconvert: str,
    target: str,
    timeout: float,
    as_json: bool,
) -> int:
    """Find the first node of BUNDLE's ONNX artifact where MNN leaves onnxruntime; exit code 0, found or not.

    \b
    mnnprep bisect out -o repro && python repro/replay.py
    """
    from pathlib import Path

    from mnnprep.commands.bisect import bisect
    from mnnprep.model.request import Limits
    from mnnprep.model.target import Target

    started = time.monotonic()
    found = bisect(
        Path(bundle),
        case=case,
        output=Path(output) if output else None,
        mnnconvert=mnnconvert,
        target=Target.parse(target) if target else None,
        limits=Limits(timeout=timeout),
        tell=lambda text: say(f"{time.monotonic() - started:6.1f} s  {text}"),
    )
    if as_json:
        echo_json(found)
    else:
        from rich.console import Console

        from mnnprep.cli.render_bisect import show_bisection

        show_bisection(Console(), found, output)
    return 0
