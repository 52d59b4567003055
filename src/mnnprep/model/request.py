"""One call of `prepare`, validated once at the edge."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

import msgspec

from mnnprep.errors import UsageError
from mnnprep.model.messages import DEFAULT_SAMPLE_LIMIT, InputSpecs
from mnnprep.model.metrics import Metric
from mnnprep.model.precision import Precision, require_precision
from mnnprep.model.preprocess import Recipe, parse_preprocess
from mnnprep.model.signature import Dim, TensorSpec, dim_names, parse_dim, parse_input, parse_range
from mnnprep.model.target import Target, require_engine

DEFAULT_TIMEOUT = 1800.0
DEFAULT_TIME_BUDGET = 120.0


class Limits(msgspec.Struct, frozen=True, kw_only=True):
    """The limits of every step.

    Wall time is in seconds, resident memory in bytes (0: none was given; three quarters of what is free
    hold).

    ``proof_memory`` is the memory of a step of the proof where the weights were streamed (0: as ``memory``).
    """

    timeout: float = DEFAULT_TIMEOUT
    memory: int = 0
    proof_memory: int = 0

    def __post_init__(self) -> None:
        if not 0 < self.timeout < math.inf:
            raise UsageError(
                "a time limit must be a positive, finite number of seconds",
                seen=f"{self.timeout:g}",
                next="give seconds, for example --timeout 600",
            )
        if (least := min(self.memory, self.proof_memory)) < 0:
            raise UsageError(
                "a memory limit is below zero", seen=str(least), next="give a size, for example --memory 8GB"
            )

    def for_proof(self) -> Limits:
        """The limits of a proof that has its own memory."""
        return Limits(timeout=self.timeout, memory=self.proof_memory or self.memory)


class Request(msgspec.Struct, frozen=True, kw_only=True):
    """``source`` is a path or a factory; ``to`` empty means the format's default, then the next.

    ``static``: the converted model takes one size only, for which MNN resolves all shapes beforehand.

    ``mnnconvert`` is the path of another MNNConvert executable, or empty for the MNN package's.
    ``targets`` are where the converted model must be right beside this machine. ``engine`` is the version of
    MNN that converts and runs it; empty: the installed one. ``time_budget`` is how many seconds after the
    first attempt another is begun; 0: any.

    ``repairs`` None: the rules that the artifact needs; else the names of those that are applied, wherever
    their pattern is, and no other. ``signature`` and ``outputs`` are as in
    :class:`~mnnprep.model.messages.Source`; ``tflite_precision`` is as in
    :class:`~mnnprep.model.messages.ExportJob`.
    """

    source: str
    weights: str = ""
    to: str = ""
    method: str = "auto"
    opset: int = 13
    wants: InputSpecs = InputSpecs()
    factory_args: dict[str, str] = msgspec.field(default_factory=dict)
    trust: bool = False
    mnnconvert: str = ""
    limits: Limits = Limits()
    precision: Precision = Precision()
    static: bool = False
    metrics: tuple[Metric, ...] = ()
    repairs: tuple[str, ...] | None = None
    signature: str = ""
    outputs: tuple[str, ...] = ()
    tflite_precision: str = ""
    targets: tuple[Target, ...] = ()
    engine: str = ""
    time_budget: float = DEFAULT_TIME_BUDGET


def make_wants(
    inputs: tuple[str, ...] = (),
    dims: tuple[str, ...] = (),
    ranges: tuple[str, ...] = (),
    samples: str = "",
    seed: int = 0,
    preprocess: tuple[str, ...] = (),
    sample_limit: int = DEFAULT_SAMPLE_LIMIT,
) -> InputSpecs:
    """The text forms of ``--input``, ``--dim``, ``--range``, ``--preprocess`` as :class:`InputSpecs`.

    Raises:
        UsageError: the text is of another form, or a value is out of bounds.
    """
    wants = InputSpecs(
        inputs=parse_inputs(inputs),
        dims=parse_dims(dims),
        ranges=parse_ranges(ranges),
        samples=str(Path(samples).absolute()) if samples else "",
        seed=seed,
        preprocess=parse_recipes(preprocess),
        sample_limit=sample_limit,
    )
    _require_wants(wants)
    return wants


def parse_inputs(texts: Sequence[str]) -> tuple[TensorSpec, ...]:
    """The texts of ``--input``.

    Raises:
        UsageError: the text is of another form, or a value is out of bounds.
    """
    specs = tuple(parse_input(text) for text in texts)
    _unique("--input", [s.name for s in specs])
    return specs


def parse_dims(texts: Sequence[str]) -> tuple[Dim, ...]:
    """The texts of ``--dim``.

    Raises:
        UsageError: the text is of another form, or a value is out of bounds.
    """
    dims = tuple(parse_dim(text) for text in texts)
    _unique("--dim", [d.name for d in dims])
    return dims


def parse_ranges(texts: Sequence[str]) -> dict[str, tuple[float, float]]:
    """The texts of ``--range``, by the input's name.

    Raises:
        UsageError: the text is of another form, or a value is out of bounds.
    """
    intervals = [parse_range(text) for text in texts]
    _unique("--range", [name for name, _ in intervals])
    return dict(intervals)


def parse_recipes(texts: Sequence[str]) -> tuple[Recipe, ...]:
    """The texts of ``--preprocess``.

    Raises:
        UsageError: the text is of another form, or a value is out of bounds.
    """
    recipes = tuple(parse_preprocess(text) for text in texts)
    kinds = [type(recipe) for recipe in recipes]
    if len(set(kinds)) < len(kinds):
        raise UsageError(
            "--preprocess is given twice for one kind of file",
            seen=" and ".join(texts),
            next=(
                "give it once for images and once for sounds; if files fill several inputs, write an .npz"
                " per sample"
            ),
        )
    return recipes


def require_consistent(request: Request) -> None:
    """Require that the options of *request* fit each other and are within bounds.

    Raises:
        UsageError: they are not.
    """
    _require_wants(request.wants)
    require_engine(request.engine)
    require_precision(request.precision, half=any(target.precision == "low" for target in request.targets))


def _require_wants(wants: InputSpecs) -> None:
    _check_dims(wants.inputs, wants.dims)
    if wants.seed < 0:
        raise UsageError("a seed is below 0", seen=str(wants.seed), next="give a whole number from 0 on")
    if wants.preprocess and not wants.samples:
        raise UsageError(
            "--preprocess goes with --samples",
            seen="no --samples",
            next="give the images or sounds with --samples DIR",
        )
    if wants.sample_limit < 1:
        raise UsageError(
            "--sample-limit must be at least 1", seen=str(wants.sample_limit), next="give a number from 1 on"
        )


def _unique(option: str, names: list[str]) -> None:
    twice = [n for n in dict.fromkeys(names) if names.count(n) > 1]
    if twice:
        raise UsageError(f"{option} is given twice for {twice[0]}", seen=twice[0], next="give it once")


def _check_dims(specs: tuple[TensorSpec, ...], dims: tuple[Dim, ...]) -> None:
    names = dim_names(specs)
    for dim in dims:
        if specs and dim.name not in names:
            raise UsageError(
                f"--dim names {dim.name}, which no --input has",
                seen=f"{dim.name}={dim.min}:{dim.max}",
                next=f"use the name in a shape, for example --input 'x=float32[{dim.name},3,224,224]'",
            )


def parse_factory_args(texts: tuple[str, ...]) -> dict[str, str]:
    """``key=value`` pairs.

    Raises:
        UsageError: the text is of another form, or a value is out of bounds.
    """
    pairs = {}
    for text in texts:
        key, equals, value = text.partition("=")
        if not equals or not key.isidentifier():
            raise UsageError(
                "a --factory-arg could not be read",
                seen=text,
                next="write key=value, for example --factory-arg classes=10",
            )
        if key in pairs:
            raise UsageError(f"--factory-arg is given twice for {key}", seen=text, next="give it once")
        pairs[key] = value
    return pairs


_UNITS = {"": 1, "K": 2**10, "M": 2**20, "G": 2**30, "T": 2**40}


def parse_size(text: str) -> int:
    """A size in bytes: a number with an optional K, M, G or T (powers of 1024) and B.

    Raises:
        UsageError: the text is of another form, or a value is out of bounds.
    """
    body = text.strip().upper().removesuffix("IB").removesuffix("B")
    unit = body[-1:] if body[-1:].isalpha() else ""
    try:
        size = int(float(body.removesuffix(unit)) * _UNITS[unit])
    except (KeyError, ValueError, OverflowError) as error:
        raise UsageError(
            "a size could not be read", seen=text, next="write a number with a unit, for example 2GB"
        ) from error
    if size < 0:
        raise UsageError(
            "a size of memory is below 0", seen=text, next="write a number with a unit, for example 2GB"
        )
    return size
