"""Surveying a source: complete its signature, choose cases, run the reference, measure its noise.

One driver for every framework: it is given a :class:`Net`, the loaded and untouched source, and
runs in the worker that loaded it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from functools import partial
from types import MappingProxyType

import numpy as np

from mnnprep.comparison.noise import LEAST_CASES, lost_in_noise, real
from mnnprep.comparison.tolerance import WIDENING, Array, Tolerance
from mnnprep.errors import RefusedError, UsageError
from mnnprep.evidence import catalog
from mnnprep.evidence.check import Check, Figure, Status
from mnnprep.model.files import Arrays
from mnnprep.model.messages import ORIGIN, InputSpecs
from mnnprep.model.net import PROGRAMMING, Case, Net, Refused
from mnnprep.model.signature import Dim, Signature, TensorSpec
from mnnprep.model.steps import Step
from mnnprep.reference.checks import Surveyed, determinism, noise_checks, sensitive, vacuity
from mnnprep.reference.decision_cases import add_decisive, turn_decisions
from mnnprep.reference.expected_outputs import compare_given
from mnnprep.reference.input_space import InputSpace
from mnnprep.reference.inputs import fitted, sizes_of
from mnnprep.reference.noise import by_output, estimate_noise, measure_all, measure_noise
from mnnprep.reference.samples import first_alone, sample_checks
from mnnprep.reference.sizes import broken
from mnnprep.reference.structured import VARIANTS
from mnnprep.reference.sweeping import sweep

WIDE = 16.0  # standard deviations of the inputs of one case
SEARCH_SCALES = (1.0, 4.0, 0.25, 16.0, 64.0)
COUNTED = 1000  # elements of a stepped output, over all cases
BORDERS = 100  # steps of an input, to either side of 0
BORDER_CASES = 6
MOST_STEPPED = 24  # cases to that end
FIRST_STRUCTURED = 150  # the number of the first structured inputs
FIRST_SEARCHED = 100  # the number of the inputs of the first of SEARCH_SCALES


def survey(
    net: Net,
    wants: InputSpecs,
    decisive: Sequence[tuple[str, float]] = (),
    one_sided: Callable[[], Sequence[str]] = lambda: (),
    ranks: Callable[[], bool] = lambda: False,
    steps: Callable[[Sequence[Case]], dict[str, Step]] = lambda _: {},
    borders: Mapping[str, float] = MappingProxyType({}),
) -> Surveyed:
    """Choose the cases, run the reference on each, and say what the source proves of itself.

    *decisive* are values of inputs that may have the source compute otherwise; each that it takes gives a
    case.  *one_sided* lists the
    decisions on values that have come out alike in every run so far: inputs that turn one are looked for.
    *ranks* says whether the source
    sorts or chooses by values: large inputs saturate scores, and what a tie gives is nobody's promise.
    *steps* measures, on the cases, the steps of the outputs of a net that rounds while it computes; *borders*
    are the scales of its inputs that are quantized at once: a case lies on the borders of their steps, where
    every way of rounding gives something else.

    Raises:
        UsageError: what the user declared does not fit the source.
        RefusedError: no input shape was found that the source takes.
    """
    return Surveyor(net, wants).survey(decisive, one_sided, ranks, steps, borders)


def base_case(net: Net, wants: InputSpecs, at: Mapping[str, int] | None = None) -> Arrays:
    """The inputs that an export is made with, of the sizes *at* if these are given.

    They are those of the survey's first synthesized case (with the values of the first sample), or the first
    sample.
    """
    space = InputSpace.find(net, wants, samples_of=first_alone(wants))
    if space.samples and not space.dims:
        return space.samples[0][1]
    return space.bounded().arrays(0, at)


def outline(net: Net, wants: InputSpecs) -> Signature:
    """The signature of a net whose numbers mean nothing, since its weights are not there.

    Only the shapes of its outputs are looked at.

    Raises as :func:`survey`.
    """
    space = InputSpace.find(net, wants).bounded()
    out = Surveyed(
        Signature(space.specs, (), space.dims), _synthesized(space, range(1), enough=False), [], {}
    )
    sweep(space, out)
    return _signature(space, out.cases)


class Surveyor:
    """The survey of one source: the inputs that it takes, and what was found so far."""

    def __init__(self, net: Net, wants: InputSpecs) -> None:
        self._source = net
        self._wants = wants
        self._space = InputSpace.find(_Remembering(net), wants).bounded()
        self._out = Surveyed(Signature(self._space.specs, (), self._space.dims), [], [], {})

    def survey(
        self,
        decisive: Sequence[tuple[str, float]],
        one_sided: Callable[[], Sequence[str]],
        ranks: Callable[[], bool],
        steps: Callable[[Sequence[Case]], dict[str, Step]],
        borders: Mapping[str, float],
    ) -> Surveyed:
        """Choose the cases, measure their noise, and check them; see :func:`survey`. To be called once."""
        space, out = self._space, self._out
        given = self._run_samples()
        self._synthesize(ranks)
        out.exempt = space.net.insensitive()
        sweep(space, out)
        add_decisive(space, decisive, out.cases)
        turn_decisions(space, one_sided, out.cases)
        out.steps = steps(out.cases)
        if out.steps:
            self._add_elements()
            out.steps = steps(out.cases)
            self._add_borders(borders)
        measure_all(self._source, out.cases, self._wants.seed)
        self._replace_lost()
        self._search_sensitivity()
        out.checks = self._checks(given)
        out.signature = _signature(space, out.cases)
        return out

    def _run_samples(self) -> list[Check]:
        """Add a case for every sample; the checks of what was given with them."""
        space, cases = self._space, self._out.cases
        for name, arrays in space.samples:
            try:
                sizes = sizes_of(arrays, space.specs, name)
                cases.append(Case(name, sizes, arrays, space.net.run(arrays)))
            except Refused as error:
                if isinstance(error.__cause__, PROGRAMMING):
                    raise broken(error, name) from error
                raise UsageError(
                    "the source does not take a sample",
                    seen=f"{name}: {error}",
                    next="give inputs that the source accepts, or fix it",
                ) from error
        return [
            *compare_given(self._wants.samples, [(c.origin, c.outputs) for c in cases]),
            *sample_checks(self._wants, space.specs, space.samples),
        ]

    def _synthesize(self, ranks: Callable[[], bool]) -> None:
        """Add LEAST_CASES synthesized cases, the last of large values where the source does not rank."""
        cases, last = self._out.cases, LEAST_CASES - 1
        enough = len(cases) >= LEAST_CASES
        cases += _synthesized(self._space, range(last), enough=enough)
        wide = None if ranks() else self._wide(last)
        if wide is not None:
            cases.append(wide)
        elif not self._space.dims:
            cases += _synthesized(self._space, range(last, LEAST_CASES), enough=enough)

    def _add_elements(self) -> None:
        """Add synthesized cases until the stepped outputs have enough elements to count steps in."""
        cases = self._out.cases
        for number in range(LEAST_CASES, MOST_STEPPED):
            if all(sum(c.outputs[n].size for c in cases) >= COUNTED for n in self._out.steps):
                return
            with suppress(Refused):
                cases.append(self._space.case(number))

    def _add_borders(self, borders: Mapping[str, float]) -> None:
        """Add cases whose inputs lie halfway between an even step of their scale and the next one out.

        To the even one or away from zero: all of them move together, above zero in one case, below in the
        next.
        """
        first, space = self._out.cases[0], self._space
        for number in range(BORDER_CASES if borders else 0):
            random = np.random.default_rng(space.seed(MOST_STEPPED + number))
            inputs = dict(first.inputs)
            for name, scale in borders.items():
                low, high = space.ranges.get(name, (-BORDERS * scale, BORDERS * scale))
                below = high <= 0 or (low < 0 and number % 2 == 1)
                reach = int((-low if below else high) / scale / 2)
                whole = 2 * random.integers(0, max(reach, 1), inputs[name].shape) + 0.5
                inputs[name] = _on_borders(-whole if below else whole, scale).astype(inputs[name].dtype)
            with suppress(Refused):
                outputs = self._source.run(inputs)
                self._out.cases.append(Case(f"borders of steps {number}", dict(first.dims), inputs, outputs))

    def _wide(self, number: int) -> Case | None:
        """A case that reaches further than standard normal values.

        Some things show only there, such as a clip inside the net.  None if no floating input is free to be
        large, or the source refuses, gives no finite numbers or computes mostly noise.
        """
        space = self._space
        if not any(np.dtype(s.dtype).kind == "f" and s.name not in space.ranges for s in space.specs):
            return None
        try:
            case = space.drawn(number, scale=WIDE)
        except Refused:
            return None
        floats = {n: a for n, a in case.outputs.items() if a.dtype.kind == "f"}
        if not all(np.isfinite(a).all() for a in floats.values()):
            return None
        plain, noise = Tolerance(), estimate_noise(self._source, case, space.seed(number))
        quiet = all(
            WIDENING * noise.get(n, 0.0) <= plain.absolute * float(np.abs(a).max(initial=0.0))
            for n, a in floats.items()
        )
        return case if quiet else None

    def _replace_lost(self) -> None:
        """Put real inputs in the place of each synthesized case that is lost in the source's noise.

        They are cut or repeated to its size, and stay only where that helps.

        A net may be quiet on what it was trained on alone: a detector sees nothing in noise, and gives little
        else.
        """
        out = self._out
        samples = [case for case in out.cases if real(case.origin)]
        if not samples or not out.signature.dims:
            return
        for number, case in enumerate(out.cases):
            if real(case.origin) or not lost_in_noise(Tolerance(noise=out.noise), number, case.outputs):
                continue
            with suppress(Refused):
                other = self._refitted(samples[number % len(samples)], case, number)
                if not lost_in_noise(Tolerance(noise=by_output([other])), 0, other.outputs):
                    out.cases[number] = other

    def _refitted(self, sample: Case, case: Case, number: int) -> Case:
        """The *sample* at the sizes of *case*, with its noise. Raises Refused."""
        arrays = fitted(sample.inputs, self._space.specs, case.dims, shift=number)
        origin = f"{sample.origin.removeprefix(ORIGIN)} at other sizes"
        other = Case(origin, dict(case.dims), arrays, self._source.run(arrays))
        other.noise = measure_noise(self._source, other, self._wants.seed)
        return other

    def _search_sensitivity(self) -> None:
        """Where the cases leave an output unmoved, look for inputs that move it, and add them.

        Structured inputs first, then other scales; at most VARIANTS + len(SEARCH_SCALES) runs.
        """
        out, space = self._out, self._space
        tries: list[Callable[[], Case | None]] = [
            partial(space.structured, FIRST_STRUCTURED + variant, variant) for variant in range(VARIANTS)
        ]
        tries += [
            partial(space.drawn, number, scale=scale)
            for number, scale in enumerate(SEARCH_SCALES, start=FIRST_SEARCHED)
        ]
        dull = [n for n in out.cases[0].outputs if n not in out.exempt and not sensitive(n, out)]
        for make in tries:
            if not dull:
                return
            try:
                case = make()
            except Refused:
                continue
            moved = [n for n in dull if case and sensitive(n, out, [case])]
            if case and moved:
                measure_all(self._source, [out.cases[0], case], self._wants.seed)
                out.cases.append(case)
                dull = [n for n in dull if n not in moved]

    def _checks(self, given: list[Check]) -> list[Check]:
        """What the source proves of itself, in the order of the evidence."""
        out = self._out
        steady = determinism(self._source, out.cases)
        redraws = self._space.redraws
        numbers: dict[str, Figure] = {"cases": len(out.cases)}
        numbers |= {"redrawn": list(redraws.mended)} if redraws.mended else {}
        reference = catalog.REFERENCE.passed(numbers=numbers, reason=redraws.reason())
        checks = [reference, *given, steady, vacuity(out)]
        return checks + (noise_checks(out) if steady.status is Status.PASSED else [])


def _on_borders(whole: Array, scale: float) -> Array:
    """*whole* steps of *scale*, halves of them, in float32.

    A half stays one where both a division and a product with the reciprocal give it back exactly, so that no
    last bit decides; others are moved to the step before.
    """
    by = np.float32(scale)
    found = (whole * scale).astype(np.float32)
    exact = (found / by == whole) & (found * (np.float32(1) / by) == whole)
    return np.where(exact, found, (np.trunc(whole) * scale).astype(np.float32))


class _Remembering:
    """A net that does not compute the same thing twice in a row.

    The run that found the sizes serves as a case.
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


def _synthesized(space: InputSpace, numbers: range, *, enough: bool) -> list[Case]:
    """A case for every number; none where the source refuses such values and has *enough* real ones."""
    try:
        return [space.case(number) for number in numbers]
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


def _signature(space: InputSpace, cases: list[Case]) -> Signature:
    """The signature, its outputs as *cases* show them."""
    outputs = tuple(_output_spec(name, cases, space.dims) for name in cases[0].outputs)
    return Signature(space.specs, outputs, space.dims)


def _output_spec(name: str, cases: list[Case], dims: tuple[Dim, ...]) -> TensorSpec:
    """An output's specification as the cases show it.

    An axis that follows one dimension has its name; one that varies otherwise is named ``NAME_axisK``.
    """
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
