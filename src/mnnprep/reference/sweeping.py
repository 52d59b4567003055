"""Trying every dynamic dimension at its sizes.

It makes cases of the sizes that the source takes, and finds what explains those that it refuses.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable

from mnnprep.model.constraints import Constraint, discover, fitting, sum_of
from mnnprep.model.messages import RefusedPair
from mnnprep.model.net import Refused
from mnnprep.model.signature import Dim
from mnnprep.reference.checks import Surveyed
from mnnprep.reference.input_space import InputSpace
from mnnprep.reference.sizes import batch_dims, sweep_sizes
from mnnprep.safety.error_text import message

MOST_PAIRS = 6  # pairs of dimensions that are moved together


def sweep(space: InputSpace, out: Surveyed) -> None:
    """Add a case for every size of every dimension, and one for every pair.

    Sizes that the source refuses are noted, and what explains it.
    """

    def add(sizes: dict[str, int]) -> None:
        out.cases.append(space.case(len(out.cases), sizes))

    for dim in space.dims:
        sizes = [
            s
            for s in sweep_sizes(dim, space.base[dim.name], batch=dim.name in batch_dims(space.specs))
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
            _explain(space, add, dim, out)
        out.sweep.sizes[dim.name] = sorted({c.dims[dim.name] for c in out.cases})
    for one, other in itertools.islice(itertools.combinations(space.dims, 2), MOST_PAIRS):
        sizes_ = _pair(out, one.name, other.name, space.base)
        if sizes_ and not any(all(c.dims[n] == s for n, s in sizes_.items()) for c in out.cases):
            try:
                add(sizes_)
            except Refused as error:
                out.sweep.refused_pairs.append(RefusedPair(sizes_, message(error)))


def _explain(space: InputSpace, add: Callable[[dict[str, int]], None], dim: Dim, out: Surveyed) -> None:
    """Find the constraint behind what the source refused of *dim*.

    The admitted sizes nearest to that are added, and the range that fits is noted.
    """
    refused = out.sweep.refused[dim.name]
    declared = {other.name: other for other in space.dims}
    constraint: Constraint | None = None
    for _ in range(2):  # an admitted size that is refused in turn is a limit
        before = len(refused)
        constraint = discover(
            space.takes,
            dim,
            space.base,
            [c.dims[dim.name] for c in out.cases],
            list(refused),
            list(space.dims),
        )
        if constraint is None:
            break
        out.sweep.constraints[dim.name] = constraint
        for admitted in dict.fromkeys(constraint.nearest(s, dim) for s in list(refused)):
            if admitted is None or any(c.dims[dim.name] == admitted for c in out.cases):
                continue
            moved = constraint.moved(dim.name, admitted)
            if (constraint.partner or admitted not in refused) and all(
                size > 0 and declared[name].admits(size) for name, size in moved.items()
            ):
                try:
                    add(moved)
                except Refused as error:
                    refused[admitted] = message(error)
        if len(refused) == before:
            break
    if constraint is None:
        out.sweep.constraints.pop(dim.name, None)
    if dim.declared and (total := sum_of(space.takes, dim, space.base, list(space.dims))):
        out.sweep.sums[dim.name] = total
    if (
        dim.declared
        and (fits := fitting(space.takes, dim, space.base, list(refused), constraint)) is not None
    ):
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
