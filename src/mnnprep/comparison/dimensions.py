"""From comparisons to the sizes that are proven: ``dimension:NAME``."""

from __future__ import annotations

import shlex
from collections.abc import Mapping

from mnnprep.evidence import catalog
from mnnprep.evidence.check import Check, Figure
from mnnprep.model.messages import Survey
from mnnprep.model.signature import Dim


def dimension_checks(
    survey: Survey, runs: Mapping[str, Check | None]
) -> tuple[list[Check], dict[str, list[int]]]:
    """``dimension:NAME`` for every dynamic dimension, and the sizes that passed everywhere.

    *runs* maps where a net ran (``the artifact``, ``MNN``) to its comparison, or None where it did not run.
    """
    judged = {dim.name: _Sizes(dim, survey, runs) for dim in survey.signature.dims}
    return [sizes.check() for sizes in judged.values()], {n: sizes.good for n, sizes in judged.items()}


class _Sizes:
    """The sizes that one dimension was swept at.

    ``lost`` are those with cases that were set aside, ``wrong`` those wrong somewhere, ``good`` the others.
    """

    def __init__(self, dim: Dim, survey: Survey, runs: Mapping[str, Check | None]) -> None:
        self._dim, self._survey = dim, survey
        self._swept = survey.sweep.sizes.get(dim.name, [])
        checks = {where: check for where, check in runs.items() if check is not None}
        self._idle = [where for where, check in runs.items() if check is None or not check.outputs]
        judged = [{e.case for e in check.outputs} for check in checks.values()]
        told = {c.dims[dim.name] for c in survey.cases if all(c.index in known for known in judged)}
        self._lost = sorted(set(self._swept) - told)
        self._wrong = {where: self._wrong_in(check) for where, check in checks.items()}
        wrong = {size for sizes in self._wrong.values() for size in sizes}
        right = [s for s in self._swept if s not in self._lost and s not in wrong]
        self.good = right if not self._idle else []

    def _wrong_in(self, check: Check) -> list[int]:
        bad = {e.case for e in check.outputs if e.problem}
        return sorted({c.dims[self._dim.name] for c in self._survey.cases if c.index in bad})

    def check(self) -> Check:
        """What these sizes prove of the dimension."""
        dim, numbers = self._dim, self._numbers()
        row = catalog.DIMENSION.of(dim.name)
        lost, good = self._lost, self.good
        if reason := broken_promise(dim, self._survey):
            return row.not_run(reason, subject=dim.name, numbers=numbers)
        if any(self._wrong.values()):
            places = [f"in {w} wrong at {', '.join(map(str, s))}" for w, s in self._wrong.items() if s]
            right = f"right at {', '.join(map(str, good))}, " if good else ""
            return row.failed(right + "; ".join(places), subject=dim.name, numbers=numbers)
        if self._idle:
            reason = f"not run in {' and '.join(self._idle)}"
            return row.not_run(reason, subject=dim.name, numbers=numbers)
        if lost and (len(good) < 2 or {dim.min, dim.max} & set(lost)):
            reason = (
                f"the source is lost in its own noise at {', '.join(map(str, lost))}; give inputs of these"
                " sizes with --samples"
            )
            return row.not_run(reason, subject=dim.name, numbers=numbers)
        if len(self._swept) < (1 if dim.declared and dim.min == dim.max else 2):
            reason = (
                f"the source takes only one of the sizes tried ({self._swept}); fix it with --input, or bound"
                " it with --dim"
            )
            return row.not_run(reason, subject=dim.name, numbers=numbers)
        return row.passed(subject=dim.name, numbers=numbers)

    def _numbers(self) -> dict[str, Figure]:
        name, sweep = self._dim.name, self._survey.sweep
        refused, constraint = sweep.refused.get(name, {}), sweep.constraints.get(name)
        numbers: dict[str, Figure] = {"swept": self._swept, "proven": self.good}
        if refused and (constraint is not None or not self._dim.declared):
            numbers["refused_by_source"] = [f"{s}: {why}" for s, why in refused.items()]
        if constraint is not None:
            numbers["constraint"] = constraint.words(name)
        if self._lost and not self._idle:
            numbers["set_aside"] = self._lost
        pairs = [str(pair) for pair in sweep.refused_pairs if name in pair.sizes]
        if pairs:
            numbers["pairs_refused_by_source"] = pairs
        return numbers


def broken_promise(dim: Dim, survey: Survey) -> str:
    """Return what the source does not take of a declared range, which is a promise.

    Empty if it takes all of it, up to multiples.
    """
    sweep = survey.sweep
    refused, fits = sweep.refused.get(dim.name, {}), sweep.fits.get(dim.name)
    if not dim.declared:
        return ""
    if dim.name in sweep.sums:
        total = sweep.sums[dim.name]
        return f"its size is {total} for the source: write {total} in place of {dim.name} with --input"
    if refused and (fits is not None or dim.name not in sweep.constraints):
        low, high = fits or (dim.min, dim.max)
        beyond = [size for size in refused if fits is None or not fits[0] <= size <= fits[1]] or list(refused)
        advice = (
            f"; declare the range that it takes: --dim {shlex.quote(f'{dim.name}={low}:{high}')}"
            if (low, high) != (dim.min, dim.max)
            else ""
        )
        told = f"the source itself refuses {', '.join(map(str, beyond))} ({beyond[0]}: {refused[beyond[0]]})"
        return f"declared {dim.min}:{dim.max}, but {told}{advice}"
    declared = {d.name for d in survey.signature.dims if d.declared}
    for pair in sweep.refused_pairs:
        if dim.name in pair.sizes and declared.issuperset(pair.sizes):
            return (
                f"declared {dim.min}:{dim.max}, but the source itself refuses {pair}; declare ranges of which"
                " it takes every pair"
            )
    return ""
