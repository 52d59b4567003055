"""``mnnprep inspect``."""

from __future__ import annotations

import click

from mnnprep.cli.main import echo_json
from mnnprep.cli.options import reading_memory, reading_timeout


@click.command("inspect")
@click.argument("file")
@reading_timeout
@reading_memory
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document on stdout.")
def command(file: str, timeout: float, memory: str, as_json: bool) -> int:
    """Say what FILE is, from its bytes: nothing of it is loaded or executed."""
    from mnnprep.workers.launch import prestart
    from mnnprep.workers.step import reader

    prestart(reader("mnnprep.commands.inspect"))  # its own imports take as long as those below

    from mnnprep.commands.inspect import inspect_file
    from mnnprep.model.request import Limits, parse_size

    found = inspect_file(file, limits=Limits(timeout=timeout, memory=parse_size(memory or "0")))
    if as_json:
        echo_json(found)
    else:
        import msgspec
        from rich.console import Console

        from mnnprep.cli.render import show_inspection

        show_inspection(Console(), msgspec.to_builtins(found))
    return 0
