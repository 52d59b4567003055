"""What the user declares of the inputs, laid over what the source says of them."""

from __future__ import annotations

from mnnprep.errors import UsageError
from mnnprep.model.messages import InputSpecs
from mnnprep.model.signature import Dim, Range, TensorSpec, dim_names, named
from mnnprep.reference.inputs import check_range


def declare(
    inputs: tuple[TensorSpec, ...], wants: InputSpecs, known_dims: tuple[Dim, ...] = ()
) -> tuple[tuple[TensorSpec, ...], tuple[Dim, ...], dict[str, Range]]:
    """Lay what the user declares over what the source says of its inputs.

    A declared shape may fix a dynamic dimension or rename it; it may not change a fixed one.
    Raises UsageError for an unknown input or dimension, another rank, dtype or fixed size.
    """
    known = [s.name for s in inputs]
    for want in wants.inputs:
        named("input", want.name, known, "--input")
    for name in wants.ranges:
        named("input", name, known, "--range")
    wanted = {w.name: w for w in wants.inputs}
    specs = tuple(_overlay(spec, wanted.get(spec.name)) for spec in inputs)
    names = dim_names(specs)
    for dim in wants.dims:
        named("dimension", dim.name, names, "--dim")
    for spec in specs:
        if spec.name in wants.ranges:
            check_range(spec, wants.ranges[spec.name])
    declared = {d.name: d for d in (*known_dims, *wants.dims)}
    dims = tuple(declared.get(name, Dim(name)) for name in names)
    return specs, dims, dict(wants.ranges)


def _overlay(spec: TensorSpec, want: TensorSpec | None) -> TensorSpec:
    if want is None:
        return spec
    if want.dtype != spec.dtype:
        raise UsageError(
            f"--input gives {spec.name} another dtype than the source has",
            seen=want.dtype,
            next=f"the source has {spec}",
        )
    if len(want.shape) != len(spec.shape):
        raise UsageError(
            f"--input gives {spec.name} another number of dimensions than the source has",
            seen=str(want),
            next=f"the source has {spec}",
        )
    for have, asked in zip(spec.shape, want.shape, strict=True):
        if isinstance(have, int) and have != asked:
            raise UsageError(
                f"--input changes a fixed dimension of {spec.name}",
                seen=f"{asked} in place of {have}",
                next=f"the source has {spec}; export it again to change a fixed dimension",
            )
    return want
