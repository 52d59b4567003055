"""``mnnprep doctor``."""

from __future__ import annotations

import click

from mnnprep.cli.main import echo_json


@click.command("doctor")
@click.option(
    "--mnnconvert",
    default="",
    envvar="MNNPREP_MNNCONVERT",
    metavar="PATH",
    help="Another MNNConvert (env: MNNPREP_MNNCONVERT).",
)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document on stdout.")
def command(mnnconvert: str, as_json: bool) -> int:
    """Say what is installed, which formats work, and what to install for the others."""
    from mnnprep.commands.doctor import diagnose

    found = diagnose(mnnconvert)
    if as_json:
        echo_json(found)
    else:
        from rich.console import Console

        from mnnprep.cli.render import show_doctor

        show_doctor(Console(), found)
    return 0
