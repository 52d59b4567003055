"""The command line that asks for what a request does, for the record: every option that decides something, no
directory.
"""

from __future__ import annotations

from pathlib import Path

from mnnprep.formats.backend import Role
from mnnprep.formats.registry import kind_of
from mnnprep.model.messages import Source, Wants
from mnnprep.model.metrics import Metric
from mnnprep.model.preprocess import preprocess_text
from mnnprep.model.request import Request
from mnnprep.safety.printable import as_text

_DEFAULT = Request(source="")


def source_name(source: Source) -> str:
    """What a reader knows the source by: a file's or directory's base name, ``file.py:callable`` or
    ``package.module:callable``.
    """
    if kind_of(source.kind).role is Role.LIVE:
        return ""
    place, _, name = source.path.rpartition(":")
    if kind_of(source.kind).role is not Role.FACTORY:
        return as_text(Path(source.path).name)
    return f"{as_text(Path(place).name) if place.endswith('.py') else place}:{name}"


def command_line(request: Request, source: Source) -> list[str]:
    """The arguments of ``mnnprep`` for *request*, without those that say where to write; empty for a live
    module.

    Limits of time are left out: they decide whether there is a result, not which.
    """
    if kind_of(source.kind).role is Role.LIVE:
        return []
    wants = request.wants
    named = {
        "--weights": _base(request.weights),
        "--to": request.to,
        "--method": _unless(request.method, _DEFAULT.method),
        "--opset": _unless(request.opset, _DEFAULT.opset),
        "--samples": _base(wants.samples),
        "--sample-limit": _unless(wants.sample_limit, Wants().sample_limit),
        "--signature": request.signature,
        "--outputs": ",".join(request.outputs),
        "--precision": request.tflite_precision,
        "--seed": _unless(wants.seed, 0),
        "--weight-bits": _unless(request.precision.weight_bits, 0),
        "--mnnconvert": _base(request.mnnconvert),
        "--budget": "" if request.precision.budget is None else repr(request.precision.budget),
        "--memory": _unless(request.limits.memory, 0),
        "--proof-memory": _unless(request.limits.proof_memory, 0),
    }
    repeated = {
        "--input": map(str, wants.inputs),
        "--dim": (f"{d.name}={d.min}:{d.max}" for d in wants.dims),
        "--range": (f"{name}={low!r}:{high!r}" for name, (low, high) in wants.ranges.items()),
        "--preprocess": map(preprocess_text, wants.preprocess),
        "--factory-arg": (f"{name}={value}" for name, value in request.factory_args.items()),
        "--repair": request.repairs or (),
        "--metric": map(_metric_text, request.metrics),
    }
    flags = {
        "--no-repair": request.repairs == (),
        "--static": request.static,
        "--fp16": request.precision.fp16,
        "--trust": request.trust,
    }
    own = (
        as_text(Path(request.source).name)
        if kind_of(source.kind).role is not Role.FACTORY
        else source_name(source)
    )
    words = ["prepare", own]
    words += [word for option, value in named.items() if value for word in (option, value)]
    words += [word for option, values in repeated.items() for value in values for word in (option, value)]
    return [*words, *(flag for flag, given in flags.items() if given)]


def _unless(value: object, default: object) -> str:
    return "" if value == default else str(value)


def _base(path: str) -> str:
    return as_text(Path(path).name) if path else ""


def _metric_text(metric: Metric) -> str:
    if metric.threshold is None:
        return metric.name
    return f"{metric.name}{'<=' if metric.own and metric.at_most else '='}{metric.threshold!r}"
