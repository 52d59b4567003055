"""``mnnprep replay``."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import click

from mnnprep.cli.main import echo_json, say
from mnnprep.cli.options import chosen, step_timeout
from mnnprep.model.options import PREPARE, request_of
from mnnprep.safety.printable import one_line

if TYPE_CHECKING:
    from mnnprep.bundle.manifest import Manifest
    from mnnprep.commands.replay import Replay
    from mnnprep.model.request import Request


@click.command("replay")
@click.argument("bundle")
@click.option(
    "--source",
    required=True,
    metavar="PATH",
    help="The source that the bundle was made from, wherever it is now.",
)
@click.option(
    "--weights", default="", metavar="CKPT", help="Its weights, if the bundle was made with --weights."
)
@click.option(
    "--samples", default="", metavar="FILE|DIR", help="The samples, if the bundle was made with --samples."
)
@click.option(
    "--mnnconvert",
    default="",
    metavar="PATH",
    help="The converter, if the bundle was made with --mnnconvert.",
)
@click.option(
    "--metric",
    "metrics",
    multiple=True,
    metavar="FILE:FUNCTION",
    help="The code of a metric that the bundle names.",
)
@click.option(
    "--trust",
    is_flag=True,
    help="Let a pickled module execute the code it names, if the bundle was made with --trust.",
)
@click.option("-o", "--output", default="", metavar="DIR", help="Keep the new bundle here.")
@click.option("--force", is_flag=True, help="Replace an existing bundle.")
@step_timeout
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document on stdout.")
def command(
    bundle: str,
    source: str,
    weights: str,
    samples: str,
    mnnconvert: str,
    metrics: tuple[str, ...],
    trust: bool,
    output: str,
    force: bool,
    timeout: float,
    as_json: bool,
) -> int:
    """Make BUNDLE again from its source and the recorded options, and compare every file's hash.

    Exit code 0: the same bytes; 1: others, and the tools of another version are named.

    \b
    mnnprep replay out --source model.onnx
    """
    from pathlib import Path

    from mnnprep.bundle.manifest import read_manifest
    from mnnprep.commands.auditing.record import require_known
    from mnnprep.commands.replay import replay

    manifest = read_manifest(Path(bundle))
    require_known(manifest)
    given = {
        "source": source,
        "weights": weights,
        "samples": samples,
        "mnnconvert": mnnconvert,
        "trust": trust,
        "timeout": timeout,
    }
    request = recorded_request(manifest, given, metrics)
    found = replay(manifest, request, Path(output) if output else None, force=force, tell=say)
    if as_json:
        echo_json(found)
    else:
        show(found)
    return 0 if found.same else 1


def recorded_request(manifest: Manifest, given: dict[str, Any], metrics: Sequence[str]) -> Request:
    """Return the request that the bundle records, its files as they are *given* here.

    No path is taken from the bundle.

    Raises:
        UsageError: a file that the bundle was made with is not given, or one that it was made without.
        RefusedError: the bundle records no command, or one that this version does not know.
    """
    from mnnprep.cli import prepare
    from mnnprep.errors import RefusedError, UsageError

    words = manifest.source.command
    if not words:
        how = (
            "it was made from a live module"
            if manifest.source.kind == "live"
            else "it was made before commands were recorded"
        )
        raise RefusedError(
            "the bundle can't be replayed: it records no command",
            seen=how,
            next="prepare the model again where it was made",
        )
    try:
        context = prepare.command.make_context("prepare", [*words[1:], "-o", "replayed"])
    except click.ClickException as error:
        raise RefusedError(
            "the bundle records a command that this version does not know",
            seen=error.format_message(),
            next="use the version that made the bundle",
        ) from error
    options = chosen(PREPARE, context.params)
    options["mnnconvert"] = manifest.source.options.get("mnnconvert")  # not what the environment says here
    for option in ("weights", "samples", "mnnconvert", "trust"):
        if options.get(option) and not given[option]:
            with_what = {"trust": "--trust", "mnnconvert": "a converter of its own"}.get(
                option, str(options[option])
            )
            what = f"the bundle was made with {with_what}, which replay must be given"
            raise UsageError(what, seen=f"no --{option}", next=f"add --{option}")
        if given[option] and not options.get(option):
            raise UsageError(
                f"the bundle was made without --{option}", seen=f"--{option}", next="leave it out"
            )
    options |= {name: value for name, value in given.items() if name != "source"}
    options["metrics"] = [_metric(text, metrics) for text in context.params["metrics"]]
    return request_of(given["source"], options)


def _metric(text: str, given: Sequence[str]) -> str:
    """A recorded ``--metric``, its function's file as it is given here."""
    from pathlib import Path

    from mnnprep.errors import UsageError

    if ".py:" not in text:
        return text
    name = re.split("<=|=", text, maxsplit=1)[0]
    found = [path for path in given if Path(path).name == name]
    if not found:
        what = "the bundle names a metric whose code replay must be given"
        raise UsageError(what, seen=name, next=f"add --metric path/to/{name}")
    return found[0] + text[len(name) :]


def show(found: Replay) -> None:
    """Print what differs, or that nothing does."""
    differing = [file for file in found.files if not file.same]
    if not differing:
        click.echo(one_line(f"the same bytes: {len(found.files)} files"))
        return
    for file in differing:
        click.echo(
            one_line(
                f"differs  {file.path}: sha256 {file.recorded[:16] or 'none'} recorded,"
                f" {file.now[:16] or 'none'} now"
            )
        )
    for tool in found.tools:
        click.echo(
            one_line(f"tool     {tool.name}: {tool.recorded} recorded, {tool.now or 'not installed'} now")
        )
    if not found.tools:
        click.echo(one_line("every tool has its recorded version: another type of CPU rounds differently"))
