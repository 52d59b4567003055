"""Options that several commands have in the same words."""

from __future__ import annotations

import click

factory_arg = click.option(
    "--factory-arg", "factory_args", multiple=True, metavar="KEY=VALUE", help="An argument for the factory."
)
json_manifest = click.option("--json", "as_json", is_flag=True, help="Print the manifest as JSON on stdout.")
reading_timeout = click.option(
    "--timeout",
    default=60.0,
    show_default=True,
    type=click.FloatRange(1),
    help="Seconds that reading the file may take.",
)
reading_memory = click.option(
    "--memory",
    default="",
    metavar="SIZE",
    help="Memory that reading the file may take, such as 8GB (default: three quarters of what is free).",
)
