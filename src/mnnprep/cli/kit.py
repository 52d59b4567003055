"""``mnnprep kit``."""

from __future__ import annotations

import click

from mnnprep.cli.main import echo_json, say


@click.command("kit")
@click.argument("bundle")
@click.option("-o", "--output", required=True, metavar="DIR", help="The new directory to copy to the device.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document on stdout.")
def command(bundle: str, output: str, as_json: bool) -> int:
    """Write what runs BUNDLE's model and cases on a device, in C++ or Python, without mnnprep.

    \b
    mnnprep kit out -o kit          # then build and run it on the device: kit/README.md
    mnnprep verify out --outputs outputs --device 'Pixel 8'
    """
    from pathlib import Path

    from mnnprep.commands.kit import kit

    found = kit(Path(bundle), Path(output))
    if as_json:
        echo_json(found)
        return 0
    for case, reason in found.skipped.items():
        say(f"case {case} is not among those for MNN's own tools: {reason}")
    size = sum(found.files.values())
    say(f"{output}: the model and {found.cases} cases, {size:,} bytes; {output}/README.md says how to run it")
    return 0
