"""``mnnprep target``."""

from __future__ import annotations

import click

from mnnprep.cli.main import echo_json, say

as_json_option = click.option("--json", "as_json", is_flag=True, help="Print one JSON document on stdout.")


@click.group("target", context_settings={"max_content_width": 120})
def command() -> None:
    """Make and list the environments in which --target runs a model: other CPUs, other versions of MNN.

    \b
    mnnprep target add arm64                 MNN for ARM64 under QEMU, from this distribution's packages
    mnnprep target add engines               every version of MNN that pip has for this Python
    mnnprep target add arm64,engine=3.2.0    one version, for ARM64
    """


@command.command("add")
@click.argument("targets", nargs=-1, required=True, metavar="TARGET...")
@click.option(
    "--rootfs",
    default="",
    metavar="DIR|ARCHIVE",
    help="The files of a system with Python, or a container image, in place of this distribution's packages.",
)
@click.option(
    "--from",
    "given",
    default="",
    metavar="DIR",
    help="The packages and wheels of an environment on another machine; nothing is downloaded.",
)
@click.option(
    "--mirror",
    default="",
    metavar="LINE",
    help="A line of apt's sources in place of this system's, as 'deb URL SUITE main'.",
)
@as_json_option
def add(targets: tuple[str, ...], rootfs: str, given: str, mirror: str, as_json: bool) -> int:
    """Make what TARGET needs and is not here yet. Downloads with apt and pip, as they are set up here."""
    from mnnprep.commands import target as run

    made = run.add(targets, rootfs=rootfs, given=given, mirror=mirror, tell=say)
    if as_json:
        echo_json({"made": made})
    elif not made:
        say("everything was here already")
    else:
        for record in made:
            say(f"added {record.arch} {f'MNN {record.engine}' if record.engine else record.origin}")
    return 0


@command.command("list")
@as_json_option
def list_(as_json: bool) -> int:
    """List the environments that are here."""
    from mnnprep.commands import target as run

    found = run.listed()
    if as_json:
        echo_json(found)
    else:
        from rich.console import Console

        from mnnprep.cli.render_targets import show_environments

        show_environments(Console(), found.environments)
    return 0


@command.command("remove")
@click.argument("targets", nargs=-1, required=True, metavar="TARGET...")
@as_json_option
def remove(targets: tuple[str, ...], as_json: bool) -> int:
    """Remove the environments of TARGET: one engine, or all of an architecture."""
    from mnnprep.commands import target as run

    paths = run.remove(targets)
    if as_json:
        echo_json({"removed": [str(path) for path in paths]})
    else:
        for path in paths:
            say(f"removed {path}")
    return 0
