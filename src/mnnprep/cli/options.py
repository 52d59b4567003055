"""Options that several commands have in the same words."""

from __future__ import annotations

import click

factory_arg = click.option("--factory-arg", "factory_args", multiple=True, metavar="KEY=VALUE", help="An argument for the factory.")
json_manifest = click.option("--json", "as_json", is_flag=True, help="Print the manifest as JSON on stdout.")
