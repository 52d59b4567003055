"""Weights that a converter folded into others, followed by arithmetic.

A batch norm after a convolution is a factor for every channel and a shift; a converter may multiply the
kernel by the factor and keep the shift as a bias.  The source's survey computes what follows from weights
alone (``derived``, each with the weights behind it); here every weight that is not in the artifact as it was
must be found in one of these forms, to within rounding:

* a derived tensor is in the artifact: the weights behind it are accounted for;
* a kernel is in the artifact times a derived factor along one axis: the kernel and the factor's weights are;
  so if a weight that scaled the kernel's inputs went into it first;
* a bias is, times a factor, plus a shift;
* a number that the source multiplies by (a derived scalar that no weight is behind) may be in a kernel's
  factor, too, and a weight that is one everywhere leaves no trace.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]
Derived = dict[str, tuple[Array, list[str]]]
CLOSE = 2e-5  # of the value, and of a tenth of the largest: a few roundings in float32
CORNER = 4  # entries of each axis that are looked at first


def account(missing: dict[str, Array], artifact: dict[str, Array], derived: Derived) -> set[str]:
    """The names of *missing* that are in the artifact in a folded form."""
    pool = [a.astype(np.float64) for a in artifact.values() if a.dtype.kind == "f" and a.size]
    vectors = _by_size(a.reshape(-1) for a in pool if a.size == max(a.shape, default=1))
    factors = {
        n: (a.astype(np.float64).reshape(-1), p)
        for n, (a, p) in derived.items()
        if a.size == max(a.shape, default=1)
    }
    scales = {1.0, *(float(v[0]) for v, p in factors.values() if v.size == 1 and not p)}
    found = {name for name, array in missing.items() if array.dtype.kind == "f" and bool(np.all(array == 1))}
    for value, parents in factors.values():
        if any(close(value, v) for v in vectors.get(value.size, [])):
            found |= set(parents)
    applied: list[Array] = []
    for forms in _kernels(missing, derived):
        for form, names in forms:
            factor = _factor(form, pool)
            if factor is None:
                continue
            owners = [
                p
                for value, p in factors.values()
                if value.size == factor.size and p and any(close(value * s, factor) for s in scales)
            ]
            if owners or _unchanged(factor):
                found |= set(names)
                applied.append(factor)
                for parents in owners:
                    found |= set(parents)
                break
    for value, parents in factors.values():  # shifts that took a scaled bias in
        if set(parents) <= found or not set(parents) & set(missing):
            continue
        biases = {
            n: a.astype(np.float64).reshape(-1)
            for n, a in missing.items()
            if n not in found and a.size == value.size == max(a.shape, default=1)
        }
        for (name, bias), factor in itertools.product(
            biases.items(), (f for f in applied if f.size == value.size)
        ):
            if any(close(bias * factor + value, v) for v in vectors.get(value.size, [])):
                found |= {name, *parents}
    return found & set(missing)


def _kernels(missing: dict[str, Array], derived: Derived) -> Iterator[Iterator[tuple[Array, list[str]]]]:
    """For each kernel that may be in the artifact its forms, each with the weights that it accounts for.

    They are the missing weights, and what the source computes from some of them: a rounded kernel, say.
    """
    for name, kernel in missing.items():
        yield _forms(name, kernel, missing)
    for value, parents in derived.values():
        plain = value.astype(np.float64).squeeze()
        if plain.ndim > 1 and not set(parents).isdisjoint(missing):
            yield iter([(plain, parents)])


def _forms(name: str, kernel: Array, missing: dict[str, Array]) -> Iterator[tuple[Array, list[str]]]:
    """The kernel *name* as it was, and times what scaled its inputs.

    That is a missing weight with a number for every entry of one axis.
    """
    plain = kernel.astype(np.float64).squeeze()
    if plain.ndim < 2:
        return
    yield plain, [name]
    for other, vector in missing.items():
        for axis in (
            a for a in range(plain.ndim) if vector.size == plain.shape[a] == max(vector.shape, default=1)
        ):
            yield (
                plain
                * vector.astype(np.float64).reshape([-1 if a == axis else 1 for a in range(plain.ndim)]),
                [name, other],
            )


def _by_size(arrays: Iterable[Array]) -> dict[int, list[Array]]:
    sizes: dict[int, list[Array]] = {}
    for array in arrays:
        sizes.setdefault(array.size, []).append(array)
    return sizes


def close(a: Array, b: Array) -> bool:
    """Whether two float64 tensors of one shape differ by a few roundings in float32 at most."""
    return bool(np.all(np.abs(a - b) <= CLOSE * (np.abs(a) + 0.1 * np.abs(a).max(initial=0.0))))


def _unchanged(factor: Array) -> bool:
    return bool(np.all(np.abs(factor - 1) <= CLOSE))


def _factor(kernel: Array, pool: list[Array]) -> Array | None:
    """Return the factor along one axis by which *kernel*, its axes permuted, is in *pool*.

    *kernel* is float64, squeezed. Returns None when it is not there.
    """
    for candidate in (a.squeeze() for a in pool if a.size == kernel.size):
        for axes in itertools.permutations(range(kernel.ndim)):
            moved = kernel.transpose(axes)
            if moved.shape != candidate.shape:
                continue
            for axis in range(moved.ndim):
                corner = tuple(slice(None) if a == axis else slice(0, CORNER) for a in range(moved.ndim))
                if _ratio(moved[corner], candidate[corner], axis) is None:
                    continue  # most are told apart by a corner
                factor = _ratio(moved, candidate, axis)
                if factor is not None:
                    return factor
    return None


def _ratio(kernel: Array, scaled: Array, axis: int) -> Array | None:
    """Return the factor along *axis* that takes *kernel* to *scaled*, by least squares.

    None if it doesn't, to within rounding.
    """
    rows = np.moveaxis(kernel, axis, 0).reshape(kernel.shape[axis], -1)
    others = np.moveaxis(scaled, axis, 0).reshape(kernel.shape[axis], -1)
    power = np.einsum("ij,ij->i", rows, rows)
    factor: Array = np.divide(
        np.einsum("ij,ij->i", rows, others), power, out=np.zeros_like(power), where=power > 0
    )
    limit = CLOSE * (np.abs(others) + 0.1 * np.abs(others).max(axis=1, keepdims=True))
    return factor if np.all(np.abs(rows * factor[:, None] - others) <= limit) else None
