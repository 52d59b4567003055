"""``mnnprep report``."""

from __future__ import annotations

import click

from mnnprep.cli.main import echo_json


@click.command("report")
@click.argument("bundle")
@click.option(
    "--bom", default="", metavar="FILE", help="Write a bill of materials as well: CycloneDX 1.6 in JSON."
)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document on stdout.")
def command(bundle: str, bom: str, as_json: bool) -> int:
    """Write BUNDLE's report.html anew, from its manifest; with --bom, what it is made of, too."""
    from pathlib import Path

    from mnnprep.bundle.bom import bill
    from mnnprep.bundle.manifest import read_manifest
    from mnnprep.bundle.report import FILE_NAME, page_bytes
    from mnnprep.errors import UsageError
    from mnnprep.model.files import atomic_write, canonical_json
    from mnnprep.safety.printable import one_line

    directory = Path(bundle)
    manifest = read_manifest(directory)
    if bom:
        written = Path(bom)
        if written.resolve().is_relative_to(directory.resolve()) or not written.absolute().parent.is_dir():
            where = "outside the bundle, whose files are fixed, in an existing directory"
            raise UsageError(
                "the bill of materials can't be written here", seen=bom, next=f"give a file {where}"
            )
        with atomic_write(written) as file:
            file.write(canonical_json(bill(manifest)))
    page = page_bytes(manifest)
    with atomic_write(directory / FILE_NAME) as file:
        file.write(page)
    if as_json:
        echo_json({"report": str(directory / FILE_NAME)} | ({"bom": bom} if bom else {}))
    else:
        click.echo(one_line(directory / FILE_NAME))
        if bom:
            click.echo(one_line(bom))
    return 0
