"""``mnnprep consolidate``."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import click

from mnnprep.cli.main import echo_json
from mnnprep.cli.options import factory_arg, json_manifest, reading_memory, reading_timeout

if TYPE_CHECKING:
    from mnnprep.weights.writer import Consolidated


@click.command("consolidate")
@click.argument("checkpoint")
@click.option(
    "-o",
    "--output",
    "output",
    default="",
    metavar="FILE",
    help="The safetensors file to write; FILE.manifest.json is written beside it.",
)
@click.option(
    "--dry-run", is_flag=True, help="Show the plan, the sizes, and what is left out and why; write nothing."
)
@click.option(
    "--at",
    default="",
    metavar="KEY",
    help="The dictionary in the checkpoint to take, such as state_dict or nets.generator.",
)
@click.option("--ema", is_flag=True, help="Take averaged weights instead of the raw ones.")
@click.option(
    "--factory",
    default="",
    metavar="SPEC",
    help="file.py:callable that builds the model; tensors that it lacks are left out.",
)
@factory_arg
@click.option("--strip", multiple=True, metavar="PREFIX", help="A prefix to take off the names.")
@click.option(
    "--rename", multiple=True, metavar="REGEX=>NAME", help="A replacement in the names, in the order given."
)
@click.option("--drop", multiple=True, metavar="REGEX", help="Names to leave out.")
@click.option("--drop-counters", is_flag=True, help="Leave num_batches_tracked out.")
@click.option(
    "--dtype", default="", metavar="TYPE", help="float32, float16 or bfloat16 for every floating tensor."
)
@click.option(
    "--join",
    multiple=True,
    metavar="REGEX=>AXIS",
    help="The axis along which to join tensor-parallel ranks; the first matching rule counts.",
)
@click.option("--base", default="", metavar="CKPT", help="The model that a LoRA adapter is merged into.")
@click.option(
    "--no-hash",
    is_flag=True,
    help="Skip the sha256 of inputs and output: bytes are copied from file to file.",
)
@click.option("--force", is_flag=True, help="Replace an existing output.")
@reading_timeout
@reading_memory
@json_manifest
def command(
    checkpoint: str,
    output: str,
    dry_run: bool,
    at: str,
    ema: bool,
    factory: str,
    factory_args: tuple[str, ...],
    strip: tuple[str, ...],
    rename: tuple[str, ...],
    drop: tuple[str, ...],
    drop_counters: bool,
    dtype: str,
    join: tuple[str, ...],
    base: str,
    no_hash: bool,
    force: bool,
    timeout: float,
    memory: str,
    as_json: bool,
) -> int:
    """Gather the weights of CHECKPOINT into one safetensors file for inference.

    CHECKPOINT is a file, a directory, an index or a URL.

    \b
    mnnprep consolidate run/step-9000 -o model.safetensors
    mnnprep consolidate last.ckpt --ema --dtype float16 -o model.safetensors
    """
    _prestart()

    from pathlib import Path

    from mnnprep.commands.consolidate import consolidate
    from mnnprep.commands.consolidation import Options
    from mnnprep.model.request import Limits, parse_factory_args, parse_size

    _require_either(output, dry_run)
    options = Options(
        ema=ema,
        at=at,
        strip=strip,
        drop=drop,
        rename=rename,
        join=join,
        base=base,
        dtype=dtype,
        counters=not drop_counters,
        factory=factory,
        factory_args=parse_factory_args(factory_args),
    )
    target, hashed = Path(output) if output else None, not no_hash
    limits = Limits(timeout=timeout, memory=parse_size(memory or "0"))
    with _bar() as bar:
        made = consolidate(
            checkpoint, target, options, hashed=hashed, force=force, progress=bar, limits=limits
        )
    _show(made, output, as_json)
    return 0


def _prestart() -> None:
    """Start the worker that plans the checkpoint: its imports take as long as this process's own."""
    from mnnprep.workers.launch import prestart
    from mnnprep.workers.step import reader

    prestart(reader("mnnprep.commands.consolidation"))


def _require_either(output: str, dry_run: bool) -> None:
    from mnnprep.errors import UsageError

    if bool(output) == dry_run:
        raise UsageError(
            "give either an output or --dry-run",
            seen=output or "neither",
            next="add -o out.safetensors, or --dry-run to see the plan",
        )


def _show(made: Consolidated, output: str, as_json: bool) -> None:
    if as_json:
        echo_json(made)
        return
    from rich.console import Console

    from mnnprep.cli.render_plan import show_consolidated

    show_consolidated(Console(), made, output)


@contextmanager
def _bar() -> Iterator[Callable[[int, int], None]]:
    """A progress bar in bytes on stderr, if that is a terminal."""
    import sys

    if not sys.stderr.isatty():
        yield lambda done, total: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, Progress, TimeRemainingColumn, TransferSpeedColumn

    columns = (BarColumn(), DownloadColumn(binary_units=True), TransferSpeedColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("", total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)
