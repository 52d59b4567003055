"""``mnnprep inspect``."""

from __future__ import annotations

import click

from mnnprep.cli.main import echo_json


@click.command("inspect")
@click.argument("file")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document on stdout.")
def command(file: str, as_json: bool) -> int:
    """Say what FILE is, from its bytes: nothing of it is loaded or executed."""
    from mnnprep.inspecting import inspect_file

    found = inspect_file(file)
    if as_json:
        echo_json(found)
    else:
        import msgspec
        from rich.console import Console

        from mnnprep.cli.render import show_inspection

        show_inspection(Console(), msgspec.to_builtins(found))
    return 0
