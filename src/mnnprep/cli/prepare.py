"""``mnnprep prepare``."""

from __future__ import annotations

import os
import time
from typing import TYPE_CHECKING

import click

from mnnprep.cli.main import echo_json, say
from mnnprep.cli.options import factory_arg, json_manifest

if TYPE_CHECKING:
    from mnnprep.model.request import Request


def request_of(
    *,
    source: str,
    weights: str,
    to: str,
    method: str,
    opset: int,
    inputs: tuple[str, ...],
    dims: tuple[str, ...],
    ranges: tuple[str, ...],
    samples: str,
    preprocess: tuple[str, ...],
    sample_limit: int,
    factory_args: tuple[str, ...],
    signature: str,
    outputs: str,
    precision: str | None,
    seed: int,
    no_repair: bool,
    repairs: tuple[str, ...],
    static: bool,
    fp16: bool,
    weight_bits: str | None,
    budget: float | None,
    metrics: tuple[str, ...],
    mnnconvert: str,
    timeout: float,
    memory: str,
    proof_memory: str,
    trust: bool,
) -> Request:
    """The options of ``prepare`` as a request. Raises UsageError."""
    from mnnprep.errors import UsageError
    from mnnprep.model.metrics import make_metrics
    from mnnprep.model.precision import make_precision
    from mnnprep.model.request import Limits, Request, make_wants, parse_factory_args, parse_size

    if no_repair and repairs:
        raise UsageError(
            "--no-repair and --repair contradict each other",
            seen=", ".join(repairs),
            next="leave one of them out",
        )
    limits = Limits(
        timeout=timeout, memory=parse_size(memory or "0"), proof_memory=parse_size(proof_memory or "0")
    )
    return Request(
        source=source,
        weights=weights,
        to=to,
        method=method,
        opset=opset,
        wants=make_wants(inputs, dims, ranges, samples, seed, preprocess, sample_limit),
        factory_args=parse_factory_args(factory_args),
        trust=trust,
        mnnconvert=os.path.abspath(mnnconvert) if mnnconvert else "",
        limits=limits,
        precision=make_precision(fp16, int(weight_bits or 0), budget),
        static=static,
        repairs=() if no_repair else repairs or None,
        metrics=make_metrics(metrics),
        signature=signature,
        outputs=tuple(n.strip() for n in outputs.split(",") if n.strip()),
        tflite_precision=precision or "",
    )


@click.command("prepare")
@click.argument("source")
@click.option("-o", "--output", "output", required=True, metavar="DIR", help="The bundle to write.")
@click.option(
    "--weights",
    default="",
    metavar="CKPT",
    help="Weights for a factory: a state dict, checkpoint or safetensors file.",
)
@click.option(
    "--to",
    default="",
    metavar="FORMAT",
    help="The artifact's format (default: the source's first, then the next).",
)
@click.option("--method", default="auto", show_default=True, metavar="NAME", help="How the artifact is made.")
@click.option(
    "--opset",
    default=13,
    show_default=True,
    type=click.IntRange(9, 30),
    help="The ONNX opset to start from; 13, 17, 11, 15 and 18 follow where MNN takes none before.",
)
@click.option(
    "--input",
    "inputs",
    multiple=True,
    metavar="SPEC",
    help="An input, as 'x=float32[batch,3,224,224]'; a name or ? is dynamic.",
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
@factory_arg
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
    "--precision",
    type=click.Choice(["float16", "int8"]),
    default=None,
    help="Of a TFLite artifact's weights; int8 needs --samples.",
)
@click.option(
    "--seed", default=0, show_default=True, type=click.IntRange(0), help="The seed of synthesized inputs."
)
@click.option("--no-repair", is_flag=True, help="Apply no repair rule.")
@click.option(
    "--repair",
    "repairs",
    multiple=True,
    metavar="RULE",
    help="Apply this repair rule wherever its pattern is, and no other (repeatable).",
)
@click.option(
    "--static", is_flag=True, help="Resolve the converted model's shapes for the one size that it takes."
)
@click.option("--fp16", is_flag=True, help="Keep the converted model's weights as float16.")
@click.option(
    "--weight-bits",
    default=None,
    type=click.Choice(["8", "4"]),
    help="Keep the converted model's weights as integers of 8 or 4 bits.",
)
@click.option(
    "--budget",
    default=None,
    type=float,
    metavar="DB",
    help="The least SQNR accepted with --fp16 (default 50) or --weight-bits (30).",
)
@click.option(
    "--metric",
    "metrics",
    multiple=True,
    metavar="NAME[=VALUE]",
    help="top1, top5, cosine, sqnr, mse, iou or file.py:function.",
)
@click.option(
    "--mnnconvert",
    default="",
    envvar="MNNPREP_MNNCONVERT",
    metavar="PATH",
    help="Another MNNConvert (env: MNNPREP_MNNCONVERT).",
)
@click.option(
    "--timeout",
    default=1800.0,
    show_default=True,
    type=click.FloatRange(1),
    help="Seconds that any one step may take.",
)
@click.option(
    "--memory",
    default="",
    metavar="SIZE",
    help="Resident memory that any one step may use, such as 8GB (default: three quarters of what is free).",
)
@click.option(
    "--proof-memory",
    default="",
    metavar="SIZE",
    help="The same for the proof, where the weights don't fit --memory and are streamed.",
)
@click.option(
    "--trust",
    is_flag=True,
    help="Let the source execute code and operators with side effects that its file holds.",
)
@click.option("--force", is_flag=True, help="Replace a bundle that is there.")
@json_manifest
def command(
    source: str,
    output: str,
    weights: str,
    to: str,
    method: str,
    opset: int,
    inputs: tuple[str, ...],
    dims: tuple[str, ...],
    ranges: tuple[str, ...],
    samples: str,
    preprocess: tuple[str, ...],
    sample_limit: int,
    factory_args: tuple[str, ...],
    signature: str,
    outputs: str,
    precision: str | None,
    seed: int,
    no_repair: bool,
    repairs: tuple[str, ...],
    static: bool,
    fp16: bool,
    weight_bits: str | None,
    budget: float | None,
    metrics: tuple[str, ...],
    mnnconvert: str,
    timeout: float,
    memory: str,
    proof_memory: str,
    trust: bool,
    force: bool,
    as_json: bool,
) -> int:
    """Prepare SOURCE (a file, or file.py:callable, or package.module:callable) for MNN and prove the result.

    \b
    mnnprep prepare model.onnx -o out
    mnnprep prepare net.py:build --weights net.safetensors --input 'x=float32[batch,3,224,224]' --dim
    batch=1:8 -o out
    """
    from mnnprep.workers.launch import ahead
    from mnnprep.workers.step import reader

    # Both workers, the one that reads the source and the one that runs it, import beside this process.
    ahead(reader("mnnprep.commands.resolve"))
    from mnnprep.formats.factory import likely_worker

    if (worker := likely_worker(source)) is not None:
        ahead(worker)

    from pathlib import Path

    from mnnprep.commands.prepare import prepare

    request = request_of(
        source=source,
        weights=weights,
        to=to,
        method=method,
        opset=opset,
        inputs=inputs,
        dims=dims,
        ranges=ranges,
        samples=samples,
        preprocess=preprocess,
        sample_limit=sample_limit,
        factory_args=factory_args,
        signature=signature,
        outputs=outputs,
        precision=precision,
        seed=seed,
        no_repair=no_repair,
        repairs=repairs,
        static=static,
        fp16=fp16,
        weight_bits=weight_bits,
        budget=budget,
        metrics=metrics,
        mnnconvert=mnnconvert,
        timeout=timeout,
        memory=memory,
        proof_memory=proof_memory,
        trust=trust,
    )
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
