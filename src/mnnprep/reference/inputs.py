"""Making input arrays: synthesized from a specification with a seed (real ones: `reference/samples.py`)."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from mnnprep.errors import RefusedError, UsageError
from mnnprep.model.files import Arrays
from mnnprep.model.signature import Range, TensorSpec, extent_size, names_in, terms

MOST_ELEMENTS = 1 << 32  # 16 GiB of float32


def synthesize(
    specs: tuple[TensorSpec, ...],
    dims: Mapping[str, int],
    seed: int,
    ranges: Mapping[str, Range],
    scale: float = 1.0,
) -> Arrays:
    """Input arrays for *specs* at the sizes *dims*; the same arguments always give the same arrays.

    An input with a range is uniform in it (an integer one in the whole numbers of it).  Without one, floats
    are standard normal times *scale*; a mask (an integer or boolean input with ``mask`` in its name) is a run
    of ones and then zeros along its last axis, as padding makes it (all ones for an even seed); other
    integers are 0 or 1.

    Raises:
        RefusedError: an input has over MOST_ELEMENTS elements.
    """
    arrays: Arrays = {}
    for position, spec in enumerate(specs):
        shape = spec.sizes(dims)
        require_makeable(spec.name, shape)
        rng = np.random.Generator(np.random.PCG64([seed, position]))
        arrays[spec.name] = _array(spec, shape, rng, ranges.get(spec.name), seed, scale)
    return arrays


def require_makeable(name: str, shape: tuple[int, ...]) -> None:
    """Refuse the input *name* of a *shape* that no memory holds.

    Raises:
        RefusedError: it has over MOST_ELEMENTS elements.
    """
    if math.prod(shape) > MOST_ELEMENTS:
        raise RefusedError(
            f"the input {name} is too large to be made",
            seen=f"{list(shape)}: {math.prod(shape):.3g} elements",
            next="give it a smaller shape with --input, or smaller sizes with --dim",
        )


def fitted(arrays: Arrays, specs: tuple[TensorSpec, ...], dims: Mapping[str, int], shift: int) -> Arrays:
    """Return inputs at the sizes *dims* made out of others.

    They are repeated or cut along every dynamic axis, beginning *shift* elements in.
    """
    made: Arrays = {}
    for spec in specs:
        array, start = arrays[spec.name], 0 if is_mask(spec) else shift
        for axis, extent in enumerate(spec.shape):
            if isinstance(extent, str):
                size = extent_size(extent, dims)
                array = np.take(array, (np.arange(size) + start) % array.shape[axis], axis=axis)
        made[spec.name] = array
    return made


def is_mask(spec: TensorSpec) -> bool:
    """Whether an integer or boolean input is a mask, by its name."""
    return np.dtype(spec.dtype).kind in "biu" and "mask" in spec.name.lower()


def _array(
    spec: TensorSpec,
    shape: tuple[int, ...],
    rng: np.random.Generator,
    interval: Range | None,
    seed: int,
    scale: float,
) -> npt.NDArray[Any]:
    dtype = np.dtype(spec.dtype)
    if dtype.kind == "f":
        values = rng.uniform(*interval, size=shape) if interval else rng.standard_normal(shape) * scale
        return np.asarray(values).astype(dtype)
    if interval is not None:
        drawn = np.asarray(
            rng.integers(
                math.ceil(interval[0]),
                math.floor(interval[1]),
                size=shape,
                dtype=_drawn(dtype),
                endpoint=True,
            )
        ).astype(dtype)
        return _never_empty(drawn) if interval == (0, 1) and _grows(spec) else drawn
    if is_mask(spec) and shape:
        return (np.ones(shape, bool) if seed % 2 == 0 else run_mask(shape, rng)).astype(dtype)
    return np.asarray(rng.integers(0, 2, size=shape)).astype(dtype)


def run_mask(shape: tuple[int, ...], rng: np.random.Generator) -> npt.NDArray[np.bool_]:
    """A run of ones and then zeros along the last axis, as padding makes it; at least half are ones."""
    length = shape[-1]
    kept = rng.integers((length + 1) // 2, length + 1, size=(*shape[:-1], 1))
    return np.asarray(np.arange(length) < kept)


def _grows(spec: TensorSpec) -> bool:
    """Whether an input is a batch of rows whose length is open, as a mask over tokens is."""
    return len(spec.shape) > 1 and isinstance(spec.shape[-1], str)


def _never_empty(bits: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """*bits* with a one at the front of every row of more than one that has none: no tokenizer masks all."""
    if bits.shape[-1] > 1:
        bits[..., 0] |= ~bits.astype(bool).any(axis=-1)
    return bits


def _drawn(dtype: np.dtype[Any]) -> type[Any]:
    return np.uint64 if dtype == np.uint64 else np.int64


def check_range(spec: TensorSpec, interval: Range) -> None:
    """Raise UsageError when an input's dtype holds no such values."""
    dtype, (low, high) = np.dtype(spec.dtype), interval
    if dtype.kind == "f":
        most = float(np.finfo(dtype).max)
        fits, empty = -most <= low and high <= most and math.isfinite(high - low), False
        held = f"{-most:g}:{most:g}"
    else:
        least, greatest = (0, 1) if dtype.kind == "b" else (np.iinfo(dtype).min, np.iinfo(dtype).max)
        fits, empty = (
            least <= math.ceil(low) and math.floor(high) <= greatest,
            math.ceil(low) > math.floor(high),
        )
        held = f"whole numbers from {least} to {greatest}"
    if empty or not fits:
        raise UsageError(
            f"--range gives {spec.name} values that its dtype can't hold",
            seen=f"{low:g}:{high:g}",
            next=f"{spec.dtype} holds {held}",
        )


def sizes_of(
    arrays: Mapping[str, npt.NDArray[Any]], specs: tuple[TensorSpec, ...], label: str
) -> dict[str, int]:
    """The size of every dynamic dimension in *arrays*.

    Raises:
        UsageError: a dimension has two sizes, or a sum has another than its parts.
    """
    dims: dict[str, int] = {}
    axes = [axis for spec in specs for axis in zip(spec.shape, arrays[spec.name].shape, strict=True)]
    for extent, size in sorted(axes, key=lambda axis: len(terms(axis[0]))):  # sums after their parts
        unknown = [name for name in names_in(extent) if name not in dims]
        if len(unknown) == 1:
            dims[unknown[0]] = int(size) - extent_size(extent, {**dims, unknown[0]: 0})
        elif not unknown and isinstance(extent, str) and extent_size(extent, dims) != size:
            raise UsageError(
                f"a sample gives the dimension {extent} two sizes",
                seen=f"{label}: {extent_size(extent, dims)} and {size}",
                next=(
                    "dimensions of one name have one size; name them differently with --input if they are"
                    " not the same"
                ),
            )
    return dims
