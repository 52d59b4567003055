"""``mnnprep verify``."""

from __future__ import annotations

import click

from mnnprep.cli.main import echo_json, say
from mnnprep.cli.options import option, step_timeout
from mnnprep.model.options import PREPARE
from mnnprep.model.target import MODES


@click.command("verify")
@click.argument("bundle")
@click.option(
    "--metric",
    "metrics",
    multiple=True,
    metavar="NAME[=VALUE]",
    help="Another task metric, or the code of one that the bundle names.",
)
@option(PREPARE["targets"])
@click.option("--key", default="", metavar="PEM", help="The public key that the bundle must be signed with.")
@click.option(
    "--outputs", default="", metavar="DIR", help="What the program of `mnnprep kit` wrote on a device."
)
@click.option("--device", default="", metavar="NAME", help="What the device is called; with --outputs.")
@click.option(
    "--precision",
    type=click.Choice(MODES),
    help="The precision that the outputs must be of (default: as they say).",
)
@step_timeout
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document on stdout.")
def command(
    bundle: str,
    metrics: tuple[str, ...],
    targets: tuple[str, ...],
    key: str,
    outputs: str,
    device: str,
    precision: str | None,
    timeout: float,
    as_json: bool,
) -> int:
    """Prove BUNDLE again from itself alone.

    The hashes are compared, and MNN runs on the stored cases against the stored references. With --outputs,
    those of a device are held to the same rules.
    """
    from pathlib import Path

    from mnnprep.commands.auditing.device import device_outputs
    from mnnprep.commands.sign import verify_signed
    from mnnprep.model.metrics import make_metrics
    from mnnprep.model.request import Limits
    from mnnprep.model.target import parse_targets

    limits = Limits(timeout=timeout)
    found = verify_signed(
        Path(bundle),
        Path(key) if key else None,
        metrics=make_metrics(metrics),
        targets=parse_targets(targets),
        device=device_outputs(outputs, device, precision or ""),
        limits=limits,
        tell=say,
    )
    if as_json:
        echo_json(found)
    else:
        from rich.console import Console

        from mnnprep.cli.render import show_verification

        show_verification(Console(), found, Path(bundle))
    return found.verdict.exit_code
