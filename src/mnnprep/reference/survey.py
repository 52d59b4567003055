"""Surveying a source: complete its signature, choose cases, run the reference, measure its noise.

One driver for every framework: it is given a :class:`Net`, the loaded and untouched source, and
runs in the worker that loaded it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any

import numpy as np

from mnnprep.compare.noise import LEAST_CASES, drowned, real
from mnnprep.compare.tolerance import WIDENING, Tolerance
from mnnprep.errors import RefusedError, UsageError
from mnnprep.evidence import catalog
from mnnprep.evidence.check import Status
from mnnprep.model.files import Arrays
from mnnprep.model.messages import ORIGIN, InputSpecs
from mnnprep.model.net import PROGRAMMING, Case, Net, Refused
from mnnprep.model.signature import Dim, Range, Signature, TensorSpec, dim_names, named
from mnnprep.reference.checks import Surveyed, determinism, noise_checks, sensitive, vacuity
from mnnprep.reference.expected_outputs import compare_given
from mnnprep.reference.inputs import check_range, fitted, is_mask, sizes_of, synthesize
from mnnprep.reference.noise import by_output, estimate_noise, measure_all, measure_noise
from mnnprep.reference.samples import first_alone, read_samples, real_inputs, sample_checks
from mnnprep.reference.sizes import base_sizes, broken
from mnnprep.reference.sweeping import sweep, synthesized

WIDE = 16.0  # standard deviations of the inputs of one case
MOST_DECISIVE = 6  # values tried because a branch may depend on them
# What is tried to turn a decision on values, floating inputs alone.
TURNS: dict[str, Callable[[Any], Any]] = {
    "all positive": np.abs,
    "all negative": lambda x: -np.abs(x),
    "scale 16": lambda x: 16 * x,
    "scale -16": lambda x: -16 * x,
    "zeros": np.zeros_like,
    "ones": np.ones_like,
    "scale 0.01": lambda x: 0.01 * x,
    "scale 1000": lambda x: 1000 * x,
}
SEARCH_SCALES = (1.0, 4.0, 0.25, 16.0, 64.0)


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
                seen=f"{asked} instead of {have}",
                next=f"the source has {spec}; export it again to change a fixed dimension",
            )
    return want


def survey(
    net: Net,
    wants: InputSpecs,
    decisive: Sequence[tuple[str, float]] = (),
    one_sided: Callable[[], Sequence[str]] = lambda: (),
    ranks: Callable[[], bool] = lambda: False,
) -> Surveyed:
    """Choose the cases, run the reference on each, and say what the source proves of itself.

    *decisive* are values of inputs that may have the source compute otherwise; each that it takes gives a
    case.  *one_sided* lists the
    decisions on values that have come out alike in every run so far: inputs that turn one are looked for.
    *ranks* says whether the source
    sorts or chooses by values: large inputs saturate scores, and what a tie gives is nobody's promise.

    Raises:
        UsageError: what the user declared does not fit the source.
        RefusedError: no input shape was found that the source takes.
    """
    specs, dims, ranges = declare(net.inputs, wants, net.dims)
    samples = _samples(net, wants, specs)
    ranges = _sample_ranges(samples, real_inputs(wants, specs)) | ranges
    source, net = net, _Remembering(net)
    base = base_sizes(net, specs, dims, ranges, samples)
    ranges = _fit_bounds(net.bounds(synthesize(specs, base, wants.seed, ranges)), ranges, specs)
    specs = tuple(TensorSpec(s.name, s.dtype, s.shape, ranges.get(s.name)) for s in specs)

    cases: list[Case] = []
    for name, arrays in samples:
        try:
            cases.append(Case(name, sizes_of(arrays, specs, name), arrays, net.run(arrays)))
        except Refused as error:
            if isinstance(error.__cause__, PROGRAMMING):
                raise broken(error, name) from error
            raise UsageError(
                "the source does not take a sample",
                seen=f"{name}: {error}",
                next="give inputs that the source accepts, or fix it",
            ) from error
    given = [
        *compare_given(wants.samples, [(c.origin, c.outputs) for c in cases]),
        *sample_checks(wants, specs, samples),
    ]
    enough = len(cases) >= LEAST_CASES
    cases += _synthesized(
        net, specs, base, range(wants.seed, wants.seed + LEAST_CASES - 1), ranges, enough=enough
    )
    wide = None if ranks() else _wide(source, net, specs, base, wants.seed + LEAST_CASES - 1, ranges)
    if wide is not None:
        cases.append(wide)
    elif not dims:
        cases += _synthesized(
            net,
            specs,
            base,
            range(wants.seed + LEAST_CASES - 1, wants.seed + LEAST_CASES),
            ranges,
            enough=enough,
        )
    out = Surveyed(Signature(specs, (), dims), cases, [], net.insensitive())
    sweep(net, specs, dims, base, ranges, wants.seed, out)
    _add_decisive(net, specs, base, ranges, wants, decisive, out)
    _turn_decisions(net, specs, base, ranges, wants, one_sided, out)
    measure_all(source, out.cases, wants.seed)
    _replace_drowned(source, specs, wants.seed, out)
    _search_sensitivity(source, net, specs, base, ranges, wants, out)
    out.checks += [catalog.REFERENCE.passed(numbers={"cases": len(out.cases)}), *given]
    steady = determinism(source, out.cases)
    out.checks.append(steady)
    out.checks.append(vacuity(out))
    if steady.status is Status.PASSED:
        out.checks.extend(noise_checks(out))
    outputs = tuple(_output_spec(name, out.cases, dims) for name in out.cases[0].outputs)
    out.signature = Signature(specs, outputs, dims)
    return out


class _Remembering:
    """A net that does not compute the same thing twice in a row: the run that found the sizes serves as a
    case.
    """

    def __init__(self, net: Net) -> None:
        self._net = net
        self.inputs, self.example, self.dims = net.inputs, net.example, net.dims
        self.run_precise, self.bounds, self.insensitive = net.run_precise, net.bounds, net.insensitive
        self._last: tuple[Arrays, Arrays] | None = None

    def run(self, inputs: Arrays) -> Arrays:
        if self._last is not None and all(np.array_equal(a, self._last[0][n]) for n, a in inputs.items()):
            return dict(self._last[1])
        outputs = self._net.run(inputs)
        self._last = inputs, outputs
        return dict(outputs)


def base_case(net: Net, wants: InputSpecs) -> Arrays:
    """The inputs an export is made with: those of the survey's first synthesized case (with the values of the
    first sample), or the first sample.
    """
    specs, dims, ranges = declare(net.inputs, wants, net.dims)
    samples = _samples(net, first_alone(wants), specs)
    ranges = _sample_ranges(samples, real_inputs(wants, specs)) | ranges
    base = base_sizes(net, specs, dims, ranges, samples)
    if samples and not dims:
        return samples[0][1]
    ranges = _fit_bounds(net.bounds(synthesize(specs, base, wants.seed, ranges)), ranges, specs)
    return synthesize(specs, base, wants.seed, ranges)


def outline(net: Net, wants: InputSpecs) -> Signature:
    """The signature of a net whose numbers mean nothing (its weights are not there): only the shapes of its
    outputs are looked at.

    Raises as :func:`survey`.
    """
    specs, dims, ranges = declare(net.inputs, wants, net.dims)
    samples = _samples(net, wants, specs)
    ranges = _sample_ranges(samples, real_inputs(wants, specs)) | ranges
    base = base_sizes(net, specs, dims, ranges, samples)
    ranges = _fit_bounds(net.bounds(synthesize(specs, base, wants.seed, ranges)), ranges, specs)
    specs = tuple(TensorSpec(s.name, s.dtype, s.shape, ranges.get(s.name)) for s in specs)
    out = Surveyed(
        Signature(specs, (), dims),
        _synthesized(net, specs, base, range(wants.seed, wants.seed + 1), ranges, enough=False),
        [],
        {},
    )
    sweep(net, specs, dims, base, ranges, wants.seed, out)
    return Signature(specs, tuple(_output_spec(name, out.cases, dims) for name in out.cases[0].outputs), dims)


def _samples(net: Net, wants: InputSpecs, specs: tuple[TensorSpec, ...]) -> list[tuple[str, Arrays]]:
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


def _sample_ranges(samples: list[tuple[str, Arrays]], specs: tuple[TensorSpec, ...]) -> dict[str, Range]:
    """The interval of each floating input's values in the real inputs, where they have one."""
    ranges: dict[str, Range] = {}
    for spec in specs:
        arrays = [a[spec.name] for origin, a in samples if real(origin) and a[spec.name].size]
        if arrays and np.dtype(spec.dtype).kind in "fiu" and not is_mask(spec):
            low, high = min(float(a.min()) for a in arrays), max(float(a.max()) for a in arrays)
            if math.isfinite(low) and math.isfinite(high) and low < high:
                ranges[spec.name] = (low, high)
    return ranges


def _wide(
    source: Net,
    net: Net,
    specs: tuple[TensorSpec, ...],
    sizes: dict[str, int],
    seed: int,
    ranges: dict[str, Range],
) -> Case | None:
    """A case that reaches further than standard normal values, for what shows only there, as a clip inside
    the net.

    None where no floating input is free to be large, or the source refuses, gives no finite numbers or
    computes mostly noise.
    """
    if not any(np.dtype(s.dtype).kind == "f" and s.name not in ranges for s in specs):
        return None
    try:
        case = synthesized(net, specs, sizes, seed, ranges, WIDE)
    except Refused:
        return None
    floats = {n: a for n, a in case.outputs.items() if a.dtype.kind == "f"}
    if not all(np.isfinite(a).all() for a in floats.values()):
        return None
    plain, noise = Tolerance(), estimate_noise(source, case, seed)
    quiet = all(
        WIDENING * noise.get(n, 0.0) <= plain.absolute * float(np.abs(a).max(initial=0.0))
        for n, a in floats.items()
    )
    return case if quiet else None


def _synthesized(
    net: Net,
    specs: tuple[TensorSpec, ...],
    sizes: dict[str, int],
    seeds: range,
    ranges: dict[str, Range],
    *,
    enough: bool,
) -> list[Case]:
    """A case for every seed; none where the source refuses such values and has *enough* real ones."""
    try:
        return [synthesized(net, specs, sizes, seed, ranges) for seed in seeds]
    except Refused as error:
        if enough:
            return []
        raise RefusedError(
            "the source fails on the values synthesized for it",
            seen=str(error),
            next=(
                f"say which it takes with --range, or give at least {LEAST_CASES} real inputs with --samples"
            ),
        ) from error


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


def _add_decisive(
    net: Net,
    specs: tuple[TensorSpec, ...],
    base: dict[str, int],
    ranges: dict[str, Range],
    wants: InputSpecs,
    values: Sequence[tuple[str, float]],
    out: Surveyed,
) -> None:
    """Add a case for each of the first *values* that its input may hold, the input filled with it."""
    allowed = {s.name: (np.dtype(s.dtype), wants.ranges.get(s.name, (-math.inf, math.inf))) for s in specs}
    possible = [
        (n, v)
        for n, v in values
        if n in allowed
        and allowed[n][1][0] <= v <= allowed[n][1][1]
        and (v == int(v) or allowed[n][0].kind == "f")
    ]
    for name, value in possible[:MOST_DECISIVE]:
        arrays = synthesize(specs, base, wants.seed + len(out.cases), ranges)
        arrays[name] = np.full_like(arrays[name], value)
        with suppress(Refused):
            out.cases.append(
                Case(
                    f"seed {wants.seed + len(out.cases)}, {name}={value:g}",
                    dict(base),
                    arrays,
                    net.run(arrays),
                )
            )


def _turn_decisions(
    net: Net,
    specs: tuple[TensorSpec, ...],
    base: dict[str, int],
    ranges: dict[str, Range],
    wants: InputSpecs,
    one_sided: Callable[[], Sequence[str]],
    out: Surveyed,
) -> None:
    """Try inputs of other sizes, of one sign and of zeros while decisions are one-sided; keep as cases those
    that turn one.
    """
    for number, (words, changed) in enumerate(TURNS.items(), start=200):
        open_ = len(one_sided())
        if not open_:
            return
        arrays = synthesize(specs, base, wants.seed + number, ranges)
        for spec in specs:
            if arrays[spec.name].dtype.kind == "f":
                values = changed(arrays[spec.name])
                low, high = wants.ranges.get(spec.name, (-math.inf, math.inf))
                arrays[spec.name] = np.clip(values, low, high).astype(spec.dtype)
        with suppress(Refused):
            outputs = net.run(arrays)
            if len(one_sided()) < open_:
                out.cases.append(Case(f"seed {wants.seed + number}, {words}", dict(base), arrays, outputs))


def _search_sensitivity(
    source: Net,
    net: Net,
    specs: tuple[TensorSpec, ...],
    base: dict[str, int],
    ranges: dict[str, Range],
    wants: InputSpecs,
    out: Surveyed,
) -> None:
    """Where the cases leave an output unmoved, look for inputs that move it, and add them."""
    dull = [n for n in out.cases[0].outputs if n not in out.exempt and not sensitive(n, out)]
    for trial, scale in enumerate(SEARCH_SCALES, start=100):
        if not dull:
            return
        try:
            case = synthesized(net, specs, base, wants.seed + trial, ranges, scale)
        except Refused:
            continue
        moved = [n for n in dull if sensitive(n, out, [case])]
        if moved:
            measure_all(source, [out.cases[0], case], wants.seed)
            out.cases.append(case)
            dull = [n for n in dull if n not in moved]


def _replace_drowned(source: Net, specs: tuple[TensorSpec, ...], seed: int, out: Surveyed) -> None:
    """Put real inputs, cut or repeated to its size, in the place of each synthesized case that drowns in the
    source's noise, where that helps.

    A net may be quiet on what it was trained on alone: a detector sees nothing in noise, and gives little
    else.
    """
    samples = [case for case in out.cases if real(case.origin)]
    if not samples or not out.signature.dims:
        return
    for number, case in enumerate(out.cases):
        if real(case.origin) or not drowned(Tolerance(noise=out.noise), number, case.outputs):
            continue
        sample = samples[number % len(samples)]
        arrays = fitted(sample.inputs, specs, case.dims, shift=number)
        with suppress(Refused):
            other = Case(
                f"{sample.origin.removeprefix(ORIGIN)} at other sizes",
                dict(case.dims),
                arrays,
                source.run(arrays),
            )
            other.noise = measure_noise(source, other, seed)
            if not drowned(Tolerance(noise=by_output([other])), 0, other.outputs):
                out.cases[number] = other


def _output_spec(name: str, cases: list[Case], dims: tuple[Dim, ...]) -> TensorSpec:
    """An output's specification as the cases show it: an axis that follows one dimension has its
    name; one that varies otherwise is named ``NAME_axisK``."""
    first = cases[0].outputs[name]
    shape: list[int | str] = []
    for axis in range(first.ndim):
        sizes = [c.outputs[name].shape[axis] if c.outputs[name].ndim == first.ndim else -1 for c in cases]
        follows = [
            d.name for d in dims if all(c.dims[d.name] == n for c, n in zip(cases, sizes, strict=True))
        ]
        if len(set(sizes)) == 1 and not (follows and len({c.dims[follows[0]] for c in cases}) > 1):
            shape.append(sizes[0])
        else:
            shape.append(follows[0] if follows else f"{name}_axis{axis}")
    return TensorSpec(name, first.dtype.name, tuple(shape))
