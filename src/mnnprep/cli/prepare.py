"""``mnnprep prepare``."""

from __future__ import annotations

import time

import click

from mnnprep.cli.main import echo_json, say
from mnnprep.cli.options import chosen, json_manifest, options
from mnnprep.model.options import PREPARE, request_of


@click.command("prepare")
@click.argument("source")
@click.option("-o", "--output", "output", required=True, metavar="DIR", help="The bundle to write.")
@options(PREPARE)
@click.option("--force", is_flag=True, help="Replace an existing bundle.")
@json_manifest
def command(source: str, output: str, force: bool, as_json: bool, **given: object) -> int:
    """Prepare SOURCE (a file, or file.py:callable, or package.module:callable) for MNN and prove the result.

    \b
    mnnprep prepare model.onnx -o out
    mnnprep prepare net.py:build --weights net.safetensors --input 'x=float32[batch,3,224,224]' --dim
    batch=1:8 -o out
    """
    from mnnprep.workers.launch import prestart
    from mnnprep.workers.step import reader

    # Both workers, the one that reads the source and the one that runs it, import beside this process.
    prestart(reader("mnnprep.commands.resolve"))
    from mnnprep.formats.factory import likely_worker

    if (worker := likely_worker(source)) is not None:
        prestart(worker)

    from pathlib import Path

    from mnnprep.commands.prepare import prepare

    request = request_of(source, chosen(PREPARE, given))
    started = time.monotonic()
    manifest = prepare(
        request,
        Path(output),
        force=force,
        tell=lambda text: say(f"{time.monotonic() - started:6.1f} s  {text}"),
    )
    if as_json:
        echo_json(manifest)
    else:
        from rich.console import Console

        from mnnprep.cli.render import show_prepared

        show_prepared(Console(), manifest, Path(output))
    return manifest.verdict.exit_code
