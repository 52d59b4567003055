"""The sizes of dynamic dimensions: those a source computes with, and those it is to be proven at."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator

from mnnprep.errors import RefusedError, UsageError
from mnnprep.model.files import Arrays
from mnnprep.model.net import PROGRAMMING, Net, Refused
from mnnprep.model.signature import Dim, Range, TensorSpec, dim_names, names_in
from mnnprep.reference.inputs import sizes_of, synthesize

LADDER = (
    16,
    32,
    8,
    4,
    2,
    1,
    64,
    128,
    224,
    256,
    512,
    576,
    1024,
    4096,
    16000,
)  # sizes tried for an unknown dimension
TRIALS = 400
ALIKE = 12  # sizes at which the same error is enough, where no size can be behind it
LARGEST_TRIAL = 2**24  # elements of one input, where nobody asked for more
BATCH_NAMES = ("n", "b", "batch", "batch_size", "batchsize", "bs")
DEFAULT_BATCH = 2


def base_sizes(
    net: Net,
    specs: tuple[TensorSpec, ...],
    dims: tuple[Dim, ...],
    ranges: dict[str, Range],
    samples: list[tuple[str, Arrays]],
) -> dict[str, int]:
    """Sizes of all dynamic dimensions that the source computes with.

    Raises:
        UsageError: a sample's sizes are not those declared.
        RefusedError: none were found.
    """
    if samples:
        return _sampled_sizes(net, specs, dims, ranges, samples) if dims else {}
    if dims:
        return _tried_sizes(net, specs, dims, ranges)
    _require_run(net, specs, ranges)
    return {}


def _sampled_sizes(
    net: Net,
    specs: tuple[TensorSpec, ...],
    dims: tuple[Dim, ...],
    ranges: dict[str, Range],
    samples: list[tuple[str, Arrays]],
) -> dict[str, int]:
    """The sizes of the first sample, with a batch of more than one where that is possible."""
    for (name, arrays), dim in itertools.product(samples, dims):
        size = sizes_of(arrays, specs, name)[dim.name]
        if not dim.admits(size):
            raise UsageError(
                f"a sample's dimension {dim.name} is outside its --dim",
                seen=f"{name}: {size}",
                next=f"declared is {dim.min}:{dim.max}",
            )
    sizes = sizes_of(samples[0][1], specs, samples[0][0])
    wider = {
        n: DEFAULT_BATCH if s == 1 and next(d for d in dims if d.name == n).admits(DEFAULT_BATCH) else s
        for n, s in sizes.items()
    }
    return wider if runs(net, specs, wider, ranges) else sizes


def _require_run(net: Net, specs: tuple[TensorSpec, ...], ranges: dict[str, Range]) -> None:
    """Raise RefusedError where the source fails on inputs of its own signature."""
    try:
        net.run(synthesize(specs, {}, 0, ranges))
    except Refused as error:
        if isinstance(error.__cause__, PROGRAMMING):
            raise broken(error, ", ".join(map(str, specs))) from error
        raise RefusedError(
            "the source fails on inputs of its own signature",
            seen=f"{', '.join(map(str, specs))}: {error}",
            next=(
                "give the shapes it takes with --input, the values with --range, or real inputs with"
                " --samples"
            ),
        ) from error


def _tried_sizes(
    net: Net, specs: tuple[TensorSpec, ...], dims: tuple[Dim, ...], ranges: dict[str, Range]
) -> dict[str, int]:
    """The first of the sizes to try that the source computes with."""
    last, refusal = "", Refused("no size is left to try")
    said: dict[str, int] = {}  # each refusal, and how often
    for sizes in _trials(specs, dims):
        try:
            net.run(synthesize(specs, sizes, 0, ranges))
            return sizes
        except Refused as error:
            last = ", ".join(f"{k}={v}" for k, v in sizes.items())
            said[str(error)] = said.get(str(error), 0) + 1
            refusal = error
            if isinstance(error.__cause__, (NameError, ImportError)) and said == {str(error): ALIKE}:
                break
    tried = sum(said.values())
    if len(said) == 1 and isinstance(refusal.__cause__, PROGRAMMING):
        raise broken(refusal, f"at {tried} sizes, {last} the last") from refusal
    if len(said) == 1 and tried > 1:
        raise RefusedError(
            f"the source refuses every size that was tried for its dynamic dimensions with the same error:"
            f" {refusal}",
            seen=f"at {last}: {refusal}",
            next="fix it; or give the sizes it takes with --input and --dim, or real inputs with --samples",
        ) from refusal
    raise RefusedError(
        "no sizes were found for the dynamic dimensions that the source accepts",
        seen=f"at {last}: {refusal}",
        next="fix or bound them with --input and --dim, or give real inputs with --samples",
    ) from refusal


def broken(error: Refused, where: str) -> RefusedError:
    """The error of a source whose own code is wrong: no size and no value mends that."""
    return RefusedError(
        f"the source raises {error}", seen=where, next="fix that place first: run the model on its own"
    )


def runs(net: Net, specs: tuple[TensorSpec, ...], sizes: dict[str, int], ranges: dict[str, Range]) -> bool:
    """Whether the source runs on synthesized inputs of these sizes."""
    try:
        net.run(synthesize(specs, sizes, 0, ranges))
    except Refused:
        return False
    return True


def batch_dims(specs: tuple[TensorSpec, ...]) -> frozenset[str]:
    """The dimensions that look like a batch: by their name, or as they only ever come first of several."""
    names = dim_names(specs)
    first = {s.shape[0] for s in specs if len(s.shape) > 1}
    later = {n for s in specs for e in s.shape[1:] for n in names_in(e)}
    later |= {s.shape[0] for s in specs if len(s.shape) == 1 and isinstance(s.shape[0], str)}
    return frozenset(n for n in names if n.lower() in BATCH_NAMES or (n in first and n not in later))


def _trials(specs: tuple[TensorSpec, ...], dims: tuple[Dim, ...]) -> list[dict[str, int]]:
    """The sizes to try, in order; those that make an input very large only if all do."""
    candidates = list(itertools.islice(_candidates(dims, batch_dims(specs)), 10 * TRIALS))
    modest = [sizes for sizes in candidates if all(math.prod(s.sizes(sizes)) <= LARGEST_TRIAL for s in specs)]
    return (modest or candidates)[:TRIALS]


def _candidates(dims: tuple[Dim, ...], batches: frozenset[str]) -> Iterator[dict[str, int]]:
    """Sizes to try, likely ones first: all alike but for the batch, then each dimension on its own."""

    def ladder(dim: Dim) -> list[int]:
        first = (
            (DEFAULT_BATCH, 1, 3, 4, *LADDER)
            if dim.name in batches
            else (dim.min * 2 if dim.min else 0, *LADDER)
        )
        sizes = [s for s in first if s and dim.admits(s)]
        ends = [s for s in (dim.min, dim.max) if s is not None]
        return list(dict.fromkeys(sizes + ends))

    ladders = {d.name: ladder(d) for d in dims}
    for step, batch in itertools.product(range(len(LADDER)), (0, 1)):
        yield {
            n: options[min(batch, len(options) - 1)] if n in batches else options[min(step, len(options) - 1)]
            for n, options in ladders.items()
        }
    for combination in itertools.product(*ladders.values()):
        yield dict(zip(ladders, combination, strict=True))


def sweep_sizes(dim: Dim, base: int, *, batch: bool) -> list[int]:
    """The sizes a dimension is tried at: both ends, 2, a prime between (declared); else near the base."""
    if not dim.declared:
        return list(dict.fromkeys((base, 1, 3) if batch else (base, base + 1, 2 * base)))
    assert dim.min is not None and dim.max is not None
    sizes = [dim.min, dim.max, *(s for s in (2,) if dim.admits(s))]
    middle = (dim.min + dim.max) / 2
    primes = [
        p
        for p in range(max(3, dim.min + 1), min(dim.max, 1000))
        if all(p % q for q in range(2, math.isqrt(p) + 1))
    ]
    sizes += sorted(primes, key=lambda p: abs(p - middle))[:1]
    return sorted(set(sizes))
