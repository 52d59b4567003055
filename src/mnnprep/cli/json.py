"""``mnnprep json``."""

from __future__ import annotations

import click

from mnnprep.cli.main import echo_json


@click.command("json")
@click.argument("source")
@click.option(
    "-o",
    "--output",
    "output",
    required=True,
    metavar="FILE",
    help="The file to write: .json from a model, .mnn from JSON.",
)
@click.option("--force", is_flag=True, help="Replace an existing file.")
@click.option(
    "--timeout", default=1800.0, show_default=True, type=click.FloatRange(1), help="Time limit in seconds."
)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document on stdout.")
def command(source: str, output: str, force: bool, timeout: float, as_json: bool) -> int:
    """Write the MNN model SOURCE as valid JSON, or the JSON SOURCE as an MNN model.

    Every number is kept exactly.

    \b
    mnnprep json model.mnn -o model.json
    mnnprep json model.json -o model.mnn
    """
    from pathlib import Path

    from mnnprep.commands.mnn_json import convert_json
    from mnnprep.model.request import Limits
    from mnnprep.safety.printable import one_line

    written = convert_json(Path(source), Path(output), force=force, limits=Limits(timeout=timeout))
    if as_json:
        echo_json(written)
    else:
        click.echo(one_line(f"{output}: {written.file.size} bytes"))
    return 0
