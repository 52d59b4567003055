"""``mnnprep sign``."""

from __future__ import annotations

import click

from mnnprep.cli.main import echo_json
from mnnprep.safety.printable import one_line


@click.command("sign")
@click.argument("bundle")
@click.option(
    "--key",
    required=True,
    metavar="PEM",
    help="Your private key (elliptic curve); its password in MNNPREP_KEY_PASSWORD.",
)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document on stdout.")
def command(bundle: str, key: str, as_json: bool) -> int:
    """Sign every file of BUNDLE with a key of yours, as bundle.sig in it; offline.

    \b
    mnnprep sign out --key private.pem
    mnnprep verify out --key public.pem
    """
    from pathlib import Path

    from mnnprep.commands.sign import sign

    written = sign(Path(bundle), Path(key))
    if as_json:
        echo_json({"signature": str(written)})
    else:
        click.echo(one_line(written))
    return 0
