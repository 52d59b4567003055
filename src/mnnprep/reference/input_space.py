"""The inputs that a source takes: their specifications, the sizes and the values that cases are made of."""

from __future__ import annotations

import math
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace

import numpy as np

from mnnprep.comparison.noise import real
from mnnprep.errors import UsageError
from mnnprep.model.files import Arrays
from mnnprep.model.messages import ORIGIN, InputSpecs
from mnnprep.model.net import Case, Net, Refused
from mnnprep.model.signature import Dim, Range, TensorSpec
from mnnprep.reference.declaration import declare
from mnnprep.reference.inputs import is_mask, synthesize
from mnnprep.reference.redraws import Redraws, draws, has_numbers, is_binary
from mnnprep.reference.samples import read_samples, real_inputs
from mnnprep.reference.sizes import base_sizes, runs
from mnnprep.reference.structured import structured

Samples = list[tuple[str, Arrays]]  # real inputs, each with its origin


@dataclass(frozen=True)
class InputSpace:
    """What the user's wants and the net leave of the possible inputs.

    ``base`` are sizes that the net computes with, ``ranges`` the values of the inputs that have an interval.
    """

    net: Net
    wants: InputSpecs
    specs: tuple[TensorSpec, ...]
    dims: tuple[Dim, ...]
    samples: Samples
    ranges: dict[str, Range]
    base: dict[str, int]
    redraws: Redraws = field(default_factory=Redraws)

    @classmethod
    def find(cls, net: Net, wants: InputSpecs, samples_of: InputSpecs | None = None) -> InputSpace:
        """The space of *net*, its sizes found by running it; *samples_of* names other samples than *wants*.

        Raises:
            UsageError: what the user declared does not fit the source.
            RefusedError: no input shape was found that the source takes.
        """
        specs, dims, declared = declare(net.inputs, wants, net.dims)
        samples = _samples(net, samples_of or wants, specs)
        ranges = _sample_ranges(samples, real_inputs(wants, specs)) | declared
        base = base_sizes(net, specs, dims, ranges, samples)
        return cls(net, wants, specs, dims, samples, ranges, base)

    def bounded(self) -> InputSpace:
        """The same with the ranges of the tables that inputs index, and every range in its specification.

        Raises UsageError where a declared range leaves the table.
        """
        ranges = _fit_bounds(self.net.bounds(self.arrays(0)), self.ranges, self.specs)
        specs = tuple(TensorSpec(s.name, s.dtype, s.shape, ranges.get(s.name)) for s in self.specs)
        return replace(self, ranges=ranges, specs=specs)

    def seed(self, number: int) -> int:
        """The seed of the inputs with this number."""
        return self.wants.seed + number

    def arrays(self, number: int, sizes: Mapping[str, int] | None = None, scale: float = 1.0) -> Arrays:
        """The inputs with this number, at *sizes* where they are not those of the base."""
        sizes = self.base | dict(sizes or {})
        return synthesize(self.specs, sizes, self.seed(number), self.ranges, scale)

    def case(self, number: int, sizes: Mapping[str, int] | None = None) -> Case:
        """A case of :meth:`arrays`, or of another draw where the source has no numbers for these.

        Raises Refused.
        """
        case = self.drawn(number, sizes)
        masked = any(is_binary(s, self.ranges.get(s.name)) for s in self.specs)
        if self.redraws.hopeless or has_numbers(self.net, case, masked=masked):
            return case
        for origin, arrays in draws(self.specs, case.dims, self.seed(number), self.ranges):
            with suppress(Refused):
                other = Case(origin, case.dims, arrays, self.net.run(arrays))
                if has_numbers(self.net, other, masked=masked):
                    self.redraws.mended.append(f"{case.origin}: {origin}")
                    return other
        at = ", ".join(f"{name}={size}" for name, size in case.dims.items())
        self.redraws.failed.append(case.origin + (f" ({at})" if at else ""))
        return case

    def drawn(self, number: int, sizes: Mapping[str, int] | None = None, scale: float = 1.0) -> Case:
        """A case of :meth:`arrays`, whatever the source makes of it. Raises Refused."""
        arrays = self.arrays(number, sizes, scale)
        origin = f"seed {self.seed(number)}" + (f", scale {scale:g}" if scale != 1.0 else "")
        return Case(origin, self.base | dict(sizes or {}), arrays, self.net.run(arrays))

    def structured(self, number: int, variant: int) -> Case | None:
        """A case whose inputs are structured as images, sounds and ids are; None if none is any of these.

        Raises Refused.
        """
        arrays, seed, found = self.arrays(number), self.seed(number), False
        for position, spec in enumerate(self.specs):
            made = structured(spec, spec.sizes(self.base), seed + position, variant)
            if made is not None:
                arrays[spec.name], found = made, True
        if not found:
            return None
        return Case(f"seed {seed}, structured {variant}", dict(self.base), arrays, self.net.run(arrays))

    def takes(self, sizes: dict[str, int]) -> bool:
        """Whether the net computes with inputs of *sizes*; no net does with an axis of none."""
        return min(sizes.values(), default=1) > 0 and runs(self.net, self.specs, sizes, self.ranges)

    def declared_range(self, name: str) -> Range:
        """The interval that the user gives the values of an input; all numbers where they give none."""
        return self.wants.ranges.get(name, (-math.inf, math.inf))


def _samples(net: Net, wants: InputSpecs, specs: tuple[TensorSpec, ...]) -> Samples:
    """The real inputs, each with its origin: the source's own example, then the user's samples."""
    example = net.example
    own = [("the source's example", example)] if example and _fits(example, specs, wants.dims) else []
    return own + [
        (ORIGIN + name, arrays) for name, arrays in (read_samples(wants, specs) if wants.samples else [])
    ]


def _fits(arrays: Arrays, specs: tuple[TensorSpec, ...], declared: tuple[Dim, ...]) -> bool:
    admitted = {d.name: d.admits for d in declared}
    return set(arrays) == {s.name for s in specs} and all(
        arrays[s.name].dtype == s.dtype
        and arrays[s.name].ndim == len(s.shape)
        and all(
            admitted.get(e, bool)(n) if isinstance(e, str) else e == n
            for e, n in zip(s.shape, arrays[s.name].shape, strict=True)
        )
        for s in specs
    )


def _sample_ranges(samples: Samples, specs: tuple[TensorSpec, ...]) -> dict[str, Range]:
    """The interval of each floating input's values in the real inputs, where they have one."""
    ranges: dict[str, Range] = {}
    for spec in specs:
        arrays = [a[spec.name] for origin, a in samples if real(origin) and a[spec.name].size]
        if arrays and np.dtype(spec.dtype).kind in "fiu" and not is_mask(spec):
            low, high = min(float(a.min()) for a in arrays), max(float(a.max()) for a in arrays)
            if math.isfinite(low) and math.isfinite(high) and low < high:
                ranges[spec.name] = (low, high)
    return ranges


def _fit_bounds(
    bounds: dict[str, Range], ranges: dict[str, Range], specs: tuple[TensorSpec, ...]
) -> dict[str, Range]:
    """What the user said of an input's values, else the range of the table it indexes."""
    for name, (low, high) in ranges.items():
        if name in bounds and not (bounds[name][0] <= low and high <= bounds[name][1]):
            raise UsageError(
                f"--range lets {name} index outside its table",
                seen=f"{low:g}:{high:g}",
                next=f"its indices are {bounds[name][0]:g}:{bounds[name][1]:g}",
            )
    return {
        s.name: ranges.get(s.name) or bounds[s.name] for s in specs if s.name in ranges or s.name in bounds
    }
