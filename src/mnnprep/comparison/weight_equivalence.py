"""Whether an artifact holds a source's parameters, by value.

A change too small for the outputs to show is still seen here: every parameter that reaches an
output must be found, bit by bit, under a transformation that moves values and changes none:

* the same bytes, in any shape of the same elements;
* with its axes permuted (a Linear's weight becomes the transposed operand of a MatMul);
* reordered, joined with others or split (the gates of a recurrent layer, stacked query, key and value):
  each of its values is in what is left of the artifact, as often as all that are sought there hold it.
  Equal tensors are sought once, and one value throughout is found in any length of it: exporters
  keep equal parts only once.
* folded by the exporter with an operation that rounds alike everywhere: 1 + w.

If a converter computes with weights beforehand, `comparison.folded_weights` follows it by arithmetic.  Where
the source itself reads a weight in parts, or computes with weights alone, `comparison.constant_parts` follows
the parts to where an input comes in.
"""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from mnnprep.comparison.constant_parts import Trail, held
from mnnprep.comparison.folded_weights import Derived, account
from mnnprep.comparison.layouts import bits as bits_of
from mnnprep.comparison.layouts import layouts
from mnnprep.evidence import catalog
from mnnprep.evidence.check import Check
from mnnprep.model.files import Arrays
from mnnprep.text import listed

Array = npt.NDArray[Any]
SHOWN = 10


Fingerprint = tuple[str, int, int, int]


def _fingerprint(array: Array) -> Fingerprint:
    """Return what reordering leaves alone: dtype, size, and the values' sum and exclusive or, as integers."""
    bits = bits_of(array)
    return (
        str(array.dtype),
        bits.size,
        int(bits.sum(dtype=np.uint64)),
        int(np.bitwise_xor.reduce(bits, initial=0)),
    )


def _relation(array: Array, candidate: Array) -> str:
    """How *candidate*, of the same fingerprint, holds the values of *array*; empty when it does not."""
    wanted = bits_of(candidate)
    for number, layout in enumerate(layouts(array)):
        if np.array_equal(bits_of(layout), wanted):
            return "transposed" if number else "identical"
    return "regrouped" if np.array_equal(np.sort(bits_of(array)), np.sort(wanted)) else ""


def _computed(array: Array) -> Iterable[tuple[Array, str]]:
    """Compute what exporters fold a parameter into, by an operation that rounds alike everywhere.

    1 + w (the norms of Gemma).
    """
    if array.dtype.kind == "f":
        yield np.asarray(array + array.dtype.type(1)), "computed"


def match_folded(record: Arrays, artifact: Arrays) -> Check:
    """:func:`match_weights` for a record as in `Survey.weights`.

    It holds ``used/NAME``, and ``derived/NAME`` with ``parents/NAME``.
    """
    used = {n.removeprefix("used/"): a for n, a in record.items() if n.startswith("used/")}
    names = [n.removeprefix("derived/") for n in record if n.startswith("derived/")]
    return match_weights(
        used, artifact, {n: (record[f"derived/{n}"], [str(p) for p in record[f"parents/{n}"]]) for n in names}
    )


def match_weights(
    source: Mapping[str, Array],
    artifact: Mapping[str, Array],
    derived: Derived | None = None,
    trails: Callable[[list[str]], list[Trail]] | None = None,
) -> Check:
    """Make the ``weights`` check.

    *source* holds the tensors that reach an output, *artifact* its initializers; *derived* is what the source
    computes from weights alone. Either mapping may read its arrays when they are asked for. *trails*
    gives, for the names of weights that were not found, what runs of the source make of them before an input
    comes in.

    Passes when each is found under one of the module's transformations; the counts of each kind
    are its numbers, with those of artifact tensors that are not parameters (constants of the code).
    """
    alike: dict[Fingerprint, list[str]] = {}
    for name, array in artifact.items():
        alike.setdefault(_fingerprint(array), []).append(name)
    taken: set[str] = set()
    counts = {"identical": 0, "transposed": 0, "regrouped": 0, "computed": 0}
    rest: dict[str, Array] = {}
    for name, array in source.items():
        for made, how in itertools.chain([(array, "")], _computed(array)):
            related = ((c, _relation(made, artifact[c])) for c in alike.get(_fingerprint(made), ()))
            candidate, relation = next(((c, r) for c, r in related if r), ("", ""))
            if relation:
                taken.add(candidate)
                counts[how or relation] += 1
                break
        else:
            rest[name] = array
    missing = _not_regrouped(rest, artifact, taken)
    counts["regrouped"] += len(rest) - len(missing)
    folded = account({n: rest[n] for n in missing}, dict(artifact), derived) if derived and missing else set()
    missing = [n for n in missing if n not in folded]
    counts |= {"folded": len(folded)} if folded else {}
    runs = [held(trail, artifact) for trail in trails(missing)] if trails and missing else []
    in_parts = set(missing).intersection(*runs) if runs else set()
    missing = [n for n in missing if n not in in_parts]
    counts |= {"in_parts": len(in_parts)} if in_parts else {}
    numbers = {
        **counts,
        "parameters": len(source),
        "artifact_tensors": len(artifact),
        "not_parameters": len(artifact) - len(taken),
    }
    if missing:
        return catalog.WEIGHTS.failed(
            f"{len(missing)} of the source's {len(source)} parameters are not in the artifact by value:"
            f" {listed(missing, SHOWN)}",
            subject=missing[0],
            numbers=numbers,
        )
    return catalog.WEIGHTS.passed(numbers=numbers)


def _not_regrouped(source: Mapping[str, Array], artifact: Mapping[str, Array], taken: set[str]) -> list[str]:
    """The names in *source* whose values are not a part of a tensor of *artifact* that is not *taken*."""
    missing = []
    pools: dict[str, _Pool] = {}
    for name, array in source.items():
        dtype = str(array.dtype)
        if dtype not in pools:
            same_type = [bits_of(a) for n, a in artifact.items() if str(a.dtype) == dtype and n not in taken]
            pools[dtype] = _Pool(same_type)
        values = bits_of(array)
        constant = _constant(values) and _constant_is_in(values[0], dtype, artifact)
        if not (pools[dtype].take(values) or constant):
            missing.append(name)
    return missing


class _Pool:
    """The values of the artifact's tensors that were not found whole, each as often as it is there."""

    def __init__(self, tensors: list[Array]) -> None:
        self.values, self.left = np.unique(
            np.concatenate(tensors) if tensors else np.zeros(0, "u1"), return_counts=True
        )
        self.taken: set[bytes] = set()

    def take(self, values: Array) -> bool:
        """Take *values* from the pool; return whether all are there.

        Then they are used up, unless there is but one, or equal ones were taken before.
        """
        key = hashlib.blake2b(values.tobytes(), digest_size=16).digest()
        if key in self.taken or not values.size:
            return True
        if not self.values.size:
            return False
        distinct, needed = np.unique(values, return_counts=True)
        places = np.minimum(np.searchsorted(self.values, distinct), self.values.size - 1)
        if np.any(self.values[places] != distinct):
            return False
        if distinct.size > 1:
            if np.any(self.left[places] < needed):
                return False
            self.left[places] -= needed
            self.taken.add(key)
        return True


def _constant(values: Array) -> bool:
    return bool(values.size) and bool(values[0] == values[-1]) and bool(np.all(values == values[0]))


def _constant_is_in(value: object, dtype: str, artifact: Mapping[str, Array]) -> bool:
    """Whether a tensor of the artifact is *value* throughout."""
    return any(
        _constant(bits) and bits[0] == value
        for a in artifact.values()
        if str(a.dtype) == dtype
        for bits in (bits_of(a),)
    )
