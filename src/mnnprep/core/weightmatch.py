"""Whether an artifact holds a source's parameters, by value.

A change too small for the outputs to show is still seen here: every parameter that reaches an
output must be found, bit by bit, under a transformation that moves values and changes none:

* the same bytes, in any shape of the same elements;
* with its axes permuted (a Linear's weight becomes the transposed operand of a MatMul);
* reordered or joined with others (the gates of a recurrent layer, stacked query, key and value).

Where a converter computes with weights beforehand, `core.foldmatch` follows it by arithmetic.
"""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Iterable
from typing import Any

import numpy as np
import numpy.typing as npt

from mnnprep.core.evidence import Check, failed, passed
from mnnprep.core.files import Arrays
from mnnprep.core.foldmatch import Derived, account

Array = npt.NDArray[Any]
SHOWN = 10


def _digest(array: Array) -> bytes:
    """A digest of the values in row-major order, whatever the shape."""
    contiguous = np.ascontiguousarray(array)
    return hashlib.blake2b(str(array.dtype).encode() + contiguous.tobytes(), digest_size=16).digest()


def _layouts(array: Array) -> Iterable[Array]:
    """The array, and its axes permuted where that moves values (up to four axes longer than 1)."""
    yield array
    squeezed = array.squeeze()
    if 2 <= squeezed.ndim <= 4:
        for axes in itertools.permutations(range(squeezed.ndim)):
            if axes != tuple(range(squeezed.ndim)):
                yield squeezed.transpose(axes)


def _bits(array: Array) -> Array:
    """The values as unsigned integers of the same width, so that -0, NaN and every ulp count."""
    flat = np.ascontiguousarray(array).reshape(-1)
    return flat.view(f"u{flat.dtype.itemsize}") if flat.dtype.kind in "fiu" else flat.astype("u1")


def match_folded(record: Arrays, artifact: Arrays) -> Check:
    """:func:`match_weights` for a record as in `Survey.weights`: ``used/NAME``, and ``derived/NAME`` with ``parents/NAME``."""
    used = {n.removeprefix("used/"): a for n, a in record.items() if n.startswith("used/")}
    names = [n.removeprefix("derived/") for n in record if n.startswith("derived/")]
    return match_weights(used, artifact, {n: (record[f"derived/{n}"], [str(p) for p in record[f"parents/{n}"]]) for n in names})


def match_weights(source: Arrays, artifact: Arrays, derived: Derived | None = None) -> Check:
    """The ``weights`` check. *source* holds the tensors that reach an output, *artifact* its initializers;
    *derived* is what the source computes from weights alone.

    Passes when each is found under one of the module's transformations; the counts of each kind
    are its numbers, with those of artifact tensors that are no parameter (constants of the code).
    """
    same = {_digest(a): n for n, a in artifact.items()}
    taken: set[str] = set()
    counts = {"identical": 0, "transposed": 0, "regrouped": 0}
    rest: dict[str, Array] = {}
    for name, array in source.items():
        for number, layout in enumerate(_layouts(array)):
            found = same.get(_digest(layout))
            if found is not None:
                taken.add(found)
                counts["transposed" if number else "identical"] += 1
                break
        else:
            rest[name] = array
    missing = []
    pools: dict[str, Array] = {}
    for name, array in rest.items():
        dtype = str(array.dtype)
        if dtype not in pools:
            same_type = [_bits(a) for n, a in artifact.items() if str(a.dtype) == dtype and n not in taken]
            pools[dtype] = np.unique(np.concatenate(same_type)) if same_type else np.zeros(0, "u1")
        if _contained(_bits(array), pools[dtype]):
            counts["regrouped"] += 1
        else:
            missing.append(name)
    folded = account({n: rest[n] for n in missing}, source, artifact, derived) if derived and missing else set()
    missing = [n for n in missing if n not in folded]
    counts |= {"folded": len(folded)} if folded else {}
    numbers = {**counts, "parameters": len(source), "artifact_tensors": len(artifact), "not_parameters": len(artifact) - len(taken)}
    if missing:
        shown = ", ".join(missing[:SHOWN]) + (f" and {len(missing) - SHOWN} more" if len(missing) > SHOWN else "")
        return failed(
            "weights", f"{len(missing)} of the source's {len(source)} parameters are not in the artifact by value: {shown}",
            subject=missing[0], numbers=numbers,
        )  # fmt: skip
    return passed("weights", numbers=numbers)


def _contained(values: Array, pool: Array) -> bool:
    """Whether every value is somewhere in the sorted, unique *pool*."""
    if not pool.size:
        return not values.size
    places = np.minimum(np.searchsorted(pool, values), pool.size - 1)
    return bool(np.all(pool[places] == values))
