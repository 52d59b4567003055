"""Trying every dynamic dimension at its sizes.

It makes cases of the sizes that the source takes, and finds what explains those that it refuses.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable

from mnnprep.model.constraints import Constraint, Takes, discover, fitting
from mnnprep.model.messages import RefusedPair
from mnnprep.model.net import Case, Net, Refused
from mnnprep.model.signature import Dim, Range, TensorSpec
from mnnprep.reference.checks import Surveyed
from mnnprep.reference.inputs import synthesize
from mnnprep.reference.sizes import batch_dims, runs, sweep_sizes
from mnnprep.safety.error_text import message

MOST_PAIRS = 6  # pairs of dimensions that are moved together


def synthesized(
    net: Net,
    specs: tuple[TensorSpec, ...],
    sizes: dict[str, int],
    seed: int,
    ranges: dict[str, Range],
    scale: float = 1.0,
) -> Case:
    """Return a case with the inputs of *seed* at *sizes*.

    Raises:
        Refused: the source does not take them.
    """
    arrays = synthesize(specs, sizes, seed, ranges, scale)
    origin = f"seed {seed}" + (f", scale {scale:g}" if scale != 1.0 else "")
    return Case(origin, dict(sizes), arrays, net.run(arrays))


def sweep(
    net: Net,
    specs: tuple[TensorSpec, ...],
    dims: tuple[Dim, ...],
    base: dict[str, int],
    ranges: dict[str, Range],
    seed: int,
    out: Surveyed,
) -> None:
    """Add a case for every size of every dimension, and one for every pair.

    Sizes that the source refuses are noted, and what explains it.
    """

    def add(sizes: dict[str, int]) -> None:
        out.cases.append(synthesized(net, specs, base | sizes, seed + len(out.cases), ranges))

    def takes(sizes: dict[str, int]) -> bool:
        return runs(net, specs, sizes, ranges)

    for dim in dims:
        sizes = [
            s
            for s in sweep_sizes(dim, base[dim.name], batch=dim.name in batch_dims(specs))
            if all(c.dims[dim.name] != s for c in out.cases)
        ]
        refused: dict[int, str] = {}
        for size in sizes:
            try:
                add({dim.name: size})
            except Refused as error:
                refused[size] = message(error)
        if refused:
            out.sweep.refused[dim.name] = refused
            _explain(takes, add, dim, dims, base, out)
        out.sweep.sizes[dim.name] = sorted({c.dims[dim.name] for c in out.cases})
    for one, other in itertools.islice(itertools.combinations(dims, 2), MOST_PAIRS):
        sizes_ = _pair(out, one.name, other.name, base)
        if sizes_ and not any(all(c.dims[n] == s for n, s in sizes_.items()) for c in out.cases):
            try:
                add(sizes_)
            except Refused as error:
                out.sweep.refused_pairs.append(RefusedPair(sizes_, message(error)))


def _explain(
    takes: Takes,
    add: Callable[[dict[str, int]], None],
    dim: Dim,
    dims: tuple[Dim, ...],
    base: dict[str, int],
    out: Surveyed,
) -> None:
    """Find the constraint behind what the source refused of *dim*.

    The admitted sizes nearest to that are added, and the range that fits is noted.
    """
    refused = out.sweep.refused[dim.name]
    constraint: Constraint | None = None
    for _ in range(2):  # an admitted size that is refused in turn is a limit
        before = len(refused)
        constraint = discover(
            takes, dim, base, [c.dims[dim.name] for c in out.cases], list(refused), list(dims)
        )
        if constraint is None:
            break
        out.sweep.constraints[dim.name] = constraint
        for admitted in dict.fromkeys(constraint.nearest(s, dim) for s in list(refused)):
            if (
                admitted is not None
                and (constraint.partner or admitted not in refused)
                and all(c.dims[dim.name] != admitted for c in out.cases)
            ):
                try:
                    add(constraint.moved(dim.name, admitted))
                except Refused as error:
                    refused[admitted] = message(error)
        if len(refused) == before:
            break
    if constraint is None:
        out.sweep.constraints.pop(dim.name, None)
    if dim.declared and (fits := fitting(takes, dim, base, list(refused), constraint)) is not None:
        out.sweep.fits[dim.name] = fits


def _pair(out: Surveyed, one: str, other: str, base: dict[str, int]) -> dict[str, int]:
    """Return sizes that take both dimensions away from their base: the one large, the other small.

    None if one can't leave it alone.
    """
    if any(c.partner for n, c in out.sweep.constraints.items() if n in (one, other)):
        return {}
    large = [s for s in out.sweep.sizes[one] if s != base[one]]
    small = [s for s in out.sweep.sizes[other] if s != base[other]]
    return {one: large[-1], other: small[0]} if large and small else {}
