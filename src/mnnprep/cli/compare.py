"""``mnnprep compare``."""

from __future__ import annotations

import time

import click

from mnnprep.cli.main import echo_json, say


@click.command("compare")
@click.argument("first")
@click.argument("second")
@click.option(
    "--input",
    "inputs",
    multiple=True,
    metavar="SPEC",
    help="An input of FIRST, as 'x=float32[batch,224,224,3]'.",
)
@click.option(
    "--dim", "dims", multiple=True, metavar="NAME=MIN:MAX", help="The range of a dynamic dimension."
)
@click.option("--range", "ranges", multiple=True, metavar="NAME=LOW:HIGH", help="The values an input takes.")
@click.option(
    "--samples",
    default="",
    metavar="FILE|DIR",
    help="Real inputs: .npz, .npy, .jpg, .png or .wav, or a directory of them.",
)
@click.option(
    "--preprocess",
    multiple=True,
    metavar="SPEC",
    help="How an image or a .wav becomes an input, as 'size=256,crop=224,scale=255'.",
)
@click.option(
    "--sample-limit",
    default=64,
    show_default=True,
    type=click.IntRange(1),
    help="The most sample files to take, evenly spaced by name.",
)
@click.option(
    "--signature",
    default="",
    metavar="NAME",
    help="The signature of a SavedModel (default: serving_default).",
)
@click.option(
    "--outputs",
    default="",
    metavar="NODE,NODE",
    help="The output nodes of a TensorFlow graph or TF1 checkpoint.",
)
@click.option(
    "--metric",
    "metrics",
    multiple=True,
    metavar="NAME[=VALUE]",
    help="top1, top5, cosine, sqnr, mse, iou or file.py:function.",
)
@click.option(
    "--seed", default=0, show_default=True, type=click.IntRange(0), help="The seed of synthesized inputs."
)
@click.option(
    "--timeout",
    default=1800.0,
    show_default=True,
    type=click.FloatRange(1),
    help="Seconds that any one step may take.",
)
@click.option(
    "--trust",
    is_flag=True,
    help="Let the sources execute code and operators with side effects that their files hold.",
)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document on stdout.")
def command(
    first: str,
    second: str,
    inputs: tuple[str, ...],
    dims: tuple[str, ...],
    ranges: tuple[str, ...],
    samples: str,
    preprocess: tuple[str, ...],
    sample_limit: int,
    signature: str,
    outputs: str,
    metrics: tuple[str, ...],
    seed: int,
    timeout: float,
    trust: bool,
    as_json: bool,
) -> int:
    """Run SECOND on the inputs made for FIRST and compare every output. A factory's weights:
    FACTORY+CHECKPOINT.

    \b
    mnnprep compare saved_model_dir model.tflite
    """
    from mnnprep.commands.compare import compare
    from mnnprep.model.metrics import make_metrics
    from mnnprep.model.request import Limits, make_wants

    started = time.monotonic()
    found = compare(
        first,
        second,
        wants=make_wants(inputs, dims, ranges, samples, seed, preprocess, sample_limit),
        limits=Limits(timeout=timeout),
        trust=trust,
        signature=signature,
        metrics=make_metrics(metrics),
        outputs=tuple(n.strip() for n in outputs.split(",") if n.strip()),
        tell=lambda text: say(f"{time.monotonic() - started:6.1f} s  {text}"),
    )
    if as_json:
        echo_json(found)
    else:
        from rich.console import Console

        from mnnprep.cli.render import show_comparison

        show_comparison(Console(), found)
    return found.verdict.exit_code
