"""``mnnprep report``."""

from __future__ import annotations

import click

from mnnprep.cli.main import echo_json


@click.command("report")
@click.argument("bundle")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document on stdout.")
def command(bundle: str, as_json: bool) -> int:
    """Write BUNDLE's report.html anew, from its manifest."""
    from pathlib import Path

    from mnnprep.bundle.manifest import read_manifest
    from mnnprep.bundle.report import FILE_NAME, render
    from mnnprep.core.files import atomic_write
    from mnnprep.core.printable import one_line

    directory = Path(bundle)
    page = render(read_manifest(directory))
    with atomic_write(directory / FILE_NAME) as file:
        file.write(page.encode("utf-8", "backslashreplace"))
    if as_json:
        echo_json({"report": str(directory / FILE_NAME)})
    else:
        click.echo(one_line(directory / FILE_NAME))
    return 0
