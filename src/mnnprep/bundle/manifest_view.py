"""The content of a manifest for a reader, in words and numbers.

Pure functions, shared by every way of showing a bundle.
"""

from __future__ import annotations

from collections.abc import Container, Iterable, Mapping, Sequence
from dataclasses import dataclass

from mnnprep.bundle.manifest import BundleFile, Manifest
from mnnprep.bundle.target_view import against_low, right_targets, to_set, wrong_targets
from mnnprep.bundle.worst import Worst, worst_of
from mnnprep.comparison.tolerance import Tolerance
from mnnprep.evidence import catalog
from mnnprep.evidence.check import Check, OutputError, Status
from mnnprep.evidence.verdict import PREPARE, Profile, Verdict, verdict
from mnnprep.model.searching import ORIGIN_SEARCHED
from mnnprep.text import listed

ARTIFACT, MNN = "artifact", "MNN"
STAGES: Mapping[str, str] = {catalog.ARTIFACT_COMPARE.name: ARTIFACT, catalog.MNN_COMPARE.name: MNN}
MEASURED_IN = (ARTIFACT, MNN, "second")  # where a task metric is measured


@dataclass(frozen=True)
class Obstacle:
    """A required check that did not pass. ``remedy`` is the next step."""

    check: str
    status: Status
    subject: str
    reason: str
    remedy: str


def concluded(manifest: Manifest) -> Verdict:
    """The verdict that the manifest's own evidence gives; it should be ``manifest.verdict``."""
    return verdict(manifest.evidence, profile_of(manifest))


def profile_of(manifest: Manifest) -> Profile:
    """By what the manifest's evidence is concluded: its dimensions and targets each need their check."""
    return PREPARE.with_dims(manifest.signature.dims).with_targets(t.target for t in manifest.targets)


def required_names(manifest: Manifest) -> tuple[str, ...]:
    """Every check that the manifest's proof needs, in the order they are asked."""
    return profile_of(manifest).required


def followed_advice(manifest: Manifest) -> frozenset[str]:
    """The checks whose advice the manifest's own call has followed: a range given, ONNX tried."""
    ranged = (name for name, dim in manifest.signature.dims.items() if None not in (dim.min, dim.max))
    found = {catalog.DIMENSION.of(name).name for name in ranged}
    if any(attempt.method.startswith("onnx") for attempt in manifest.artifact.attempts):
        found |= {catalog.FRONTEND_OPERATORS.name}
        if manifest.artifact.format == "torchscript":
            found.add(catalog.MNN_CONVERT.name)
    return frozenset(found)


def obstacles(
    evidence: Sequence[Check], names: Iterable[str] = (), followed: Container[str] = ()
) -> list[Obstacle]:
    """List what stands between *evidence* and `proven`: failed checks first, then those not run or absent.

    *names* are the checks that must be there and pass (see :func:`required_names`), whatever they say of
    themselves; others count where they are marked as required.  *followed* are the checks whose advice was
    followed (see :func:`followed_advice`).
    """
    wanted = tuple(names)
    found = [
        Obstacle(
            c.check,
            c.status,
            c.subject,
            c.reason,
            catalog.row(c.check).remedy(c.status, followed=_followed(c, followed)),
        )
        for c in evidence
        if c.status is not Status.PASSED
        and (c.required or c.check in wanted or (c.check in catalog.USABILITY and c.status is Status.FAILED))
    ]
    present = {c.check for c in evidence}
    absent = [name for name in wanted if name not in present]
    found += [
        Obstacle(
            name, Status.NOT_RUN, "", "the evidence does not hold this check", catalog.row(name).if_not_run
        )
        for name in absent
    ]
    return sorted(found, key=lambda o: (o.status is not Status.FAILED, o.check not in catalog.USABILITY))


def obstacles_of(manifest: Manifest) -> list[Obstacle]:
    """List what stands between a manifest and `proven`, with what to do that was not done yet."""
    return obstacles(manifest.evidence, required_names(manifest), followed_advice(manifest))


def _followed(check: Check, followed: Container[str]) -> bool:
    """Whether the advice for *check*, as it ended, was followed.

    A dimension that is wrong at some size is another matter than one without a range.
    """
    advised = check.status is Status.NOT_RUN or check.check == catalog.FRONTEND_OPERATORS.name
    return advised and check.check in followed


def meaning(manifest: Manifest) -> str:
    """Say in one sentence what the verdict means for whoever ships the model."""
    cases = f"{len(manifest.cases)} case{'' if len(manifest.cases) == 1 else 's'}"
    outcome = concluded(manifest)
    model = manifest.mnn.path if manifest.mnn else "the converted model"
    if outcome is Verdict.PROVEN:
        sentence = (
            f"On all {cases}, {model} computes in MNN what the untouched source computes in its own"
            " framework, within the tolerance."
        )
        right = [record.target for record in manifest.targets]
        there = f"So it does on {listed(right)}." if right else ""
        return " ".join(filter(None, (sentence, there, settings(manifest), limits(manifest))))
    if wrong := wrong_targets(manifest.evidence):
        advice = to_set(manifest.evidence, manifest.tools.get("MNN", ""))
        places = listed(["this machine", *right_targets(manifest.evidence)])
        return " ".join(
            filter(
                None,
                (
                    f"{model} is proven for {places}, and wrong on {listed(wrong)}.",
                    advice,
                    hints_to_set(manifest),
                ),
            )
        )
    if outcome is Verdict.REFUSED:
        return "There is no model to ship: the source gave nothing usable, or MNN's converter refused it."
    sentence = (
        "A comparison failed: do not ship this model before you resolve the failed checks."
        if outcome is Verdict.DIFFERS
        else "No error was found, but a check that the proof needs did not run or proves nothing: treat this"
        " model as untested."
    )
    return " ".join(filter(None, (sentence, against_low(manifest.runtime.against_low))))


def settings(manifest: Manifest) -> str:
    """List what an app must set in MNN's runtime to get what was proven; empty if the defaults do."""
    return " ".join(filter(None, (hints_to_set(manifest), against_low(manifest.runtime.against_low))))


def hints_to_set(manifest: Manifest) -> str:
    """The hints among the :func:`settings`, and what happens without them; empty if there are none."""
    hints = ", ".join(f"{name}={value}" for name, value in manifest.runtime.hints.items())
    if not hints:
        return ""
    excess = next(
        (
            c.numbers.get("excess_at_default_settings")
            for c in manifest.evidence
            if c.check == catalog.MNN_COMPARE.name
        ),
        None,
    )
    otherwise = (
        f"; with MNN's defaults its error is {number(excess)} times the tolerance"
        if isinstance(excess, (int, float))
        else ""
    )
    return f"The app must set {hints} in MNN's runtime{otherwise}."


def searched(manifest: Manifest) -> str:
    """What was searched for inputs on which MNN may differ, and found; empty if no search ran."""
    figures = next((c.numbers for c in manifest.evidence if c.check == catalog.MNN_COMPARE.name), {})
    count = figures.get("searched")
    if not count:
        return ""
    found = [n for n, case in enumerate(manifest.cases) if case.origin.startswith(ORIGIN_SEARCHED)]
    outcome = f"case {found[0]} is what it found" if found else "no output differed on them"
    reach = ""
    if "values_watched" in figures:
        reach = (
            f", which take {figures['values_widened']} of {figures['values_watched']} watched values inside"
            " the model further than the cases before"
        )
    return f"A search compared {count} further inputs{reach}; {outcome}."


def limits(manifest: Manifest) -> str:
    """List what the source asks of the sizes it is given; empty if nothing was found."""
    asked = [dim.constraint for dim in manifest.signature.dims.values() if dim.constraint]
    return f"The source itself requires {', '.join(asked)}." if asked else ""


def _errors(evidence: Iterable[Check]) -> list[tuple[str, OutputError]]:
    return [(STAGES[c.check], e) for c in evidence if c.check in STAGES for e in c.outputs]


def worst_errors(evidence: Iterable[Check]) -> list[Worst]:
    """Return one row for every output and stage that was compared, over all cases.

    The outputs come in order of first appearance.
    """
    groups: dict[tuple[str, str], list[OutputError]] = {}
    for stage, error in _errors(evidence):
        groups.setdefault((error.output, stage), []).append(error)
    order = {name: i for i, name in enumerate(dict.fromkeys(output for output, _ in groups))}
    keys = sorted(groups, key=lambda key: (order[key[0]], key[1] == MNN))
    return [worst_of(output, stage, groups[output, stage]) for output, stage in keys]


def uncompared(evidence: Iterable[Check]) -> list[str]:
    """The stages of which the evidence holds no comparison of outputs."""
    compared = {stage for stage, _ in _errors(evidence)}
    return [stage for stage in (ARTIFACT, MNN) if stage not in compared]


@dataclass(frozen=True)
class Measure:
    """A task metric for reading.

    Its value at every place it was measured, what it must reach, over how many inputs of which kind.
    """

    name: str
    status: Status
    values: dict[str, str]
    wanted: str
    inputs: str
    reason: str


def measures(evidence: Iterable[Check]) -> list[Measure]:
    """The task metrics in *evidence*, in order."""
    found = []
    for check in (c for c in evidence if catalog.METRIC.has(c.check)):
        values = {
            where: _metric_figure(value) for where, value in check.numbers.items() if where in MEASURED_IN
        }
        inputs = (
            f"{check.numbers['cases']} {check.numbers.get('inputs', '')} cases"
            if "cases" in check.numbers
            else ""
        )
        found.append(
            Measure(
                catalog.METRIC.member(check.check), check.status, values, check.subject, inputs, check.reason
            )
        )
    return found


def _metric_figure(value: object) -> str:
    return f"{value:.6g}" if isinstance(value, (int, float)) else str(value)


@dataclass(frozen=True)
class SizeTried:
    """One size of a dynamic dimension, with the worst error over the outputs of its cases.

    The error is None at a stage that was not run.
    """

    dim: str
    size: int
    proven: bool
    cases: int
    artifact: Worst | None
    mnn: Worst | None


def sizes_tried(manifest: Manifest) -> list[SizeTried]:
    """Every size of every dynamic dimension that a case or the signature's ``proven`` names.

    Its cases are those where the other dimensions are as in case 0 (a size is not blamed for what another
    dimension did); if there is none such, all that have the size.
    """
    errors = _errors(manifest.evidence)
    base = manifest.cases[0].dims if manifest.cases else {}
    rows = []
    for name, dim in manifest.signature.dims.items():
        by_size: dict[int, set[int]] = {size: set() for size in dim.proven}
        for size in dict.fromkeys(c.dims[name] for c in manifest.cases if name in c.dims):
            having = [
                (index, case.dims) for index, case in enumerate(manifest.cases) if case.dims.get(name) == size
            ]
            alone = [index for index, dims in having if dims == {**base, name: size}]
            by_size[size] = set(alone or (index for index, _ in having))
        for size in sorted(by_size):
            at = {
                stage: [e for s, e in errors if s == stage and e.case in by_size[size]]
                for stage in (ARTIFACT, MNN)
            }
            worst = {stage: worst_of("", stage, found) if found else None for stage, found in at.items()}
            rows.append(
                SizeTried(name, size, size in dim.proven, len(by_size[size]), worst[ARTIFACT], worst[MNN])
            )
    return rows


def bundle_files(manifest: Manifest) -> list[BundleFile]:
    """Return every file that the manifest names in the bundle, once.

    The MNN model and the artifact come first, then the others by path.
    """
    first = [*([manifest.mnn] if manifest.mnn else []), *manifest.artifact.files]
    rest = [*(BundleFile(c.path, c.sha256, c.size) for c in manifest.cases), *manifest.files]
    return list({f.path: f for f in [*first, *sorted(rest, key=lambda f: f.path)]}.values())


def tolerance_words(tolerance: Tolerance) -> list[str]:
    """The tolerance as sentences with its numbers."""
    if tolerance.sqnr_db is not None:
        decibels, in_one = number(tolerance.sqnr_db), number(tolerance.sqnr_db - tolerance.case_slack_db)
        first = (
            f"The error of every floating output must stay {decibels} dB below its signal over all cases, and"
            f" {in_one} dB in each of them (SQNR = 10 · log10(Σ ref² / Σ (a − b)²))."
        )
    else:
        first = (
            f"Every element of a floating output may be off by at most {number(tolerance.absolute)} of the"
            f" output's largest magnitude, or {number(tolerance.widening)} times its noise in that case if"
            f" that is more, plus {number(tolerance.relative)} of the element itself; noise never widens it"
            f" beyond {number(tolerance.ceiling)} of the largest magnitude."
        )
    return [
        first,
        "Integers and booleans must be equal; names, shapes, dtypes and the places of NaN and ±inf too.",
    ]


def number(value: float | int | None) -> str:
    """A figure for reading: four significant digits, an en dash for None, integers in full."""
    if value is None:
        return "–"
    if isinstance(value, int) or (abs(value) < 1e6 and value == int(value)):
        return str(int(value))
    if 1e-3 <= abs(value) < 1e6:
        return f"{value:.4g}" if abs(value) < 1e4 else f"{value:.0f}"
    mantissa, _, exponent = f"{value:.1e}".partition("e")
    return f"{mantissa.removesuffix('.0')}e{int(exponent)}"


def cosine_text(value: float | None) -> str:
    """A cosine similarity, with as many nines as it takes to tell it from 1."""
    if value is None or value >= 1.0:
        return "–" if value is None else "1"
    if value < 0.999:
        return f"{value:.4f}"
    distance = 1.0 - value
    return f"1 − {number(distance)}" if distance > 0 else "1"


def share(excess: float | None) -> str:
    """The share of the tolerance used: a percentage up to 100 %, a multiple beyond."""
    if excess is None:
        return "–"
    if excess > 1:
        return f"{number(float(f'{excess:.3g}'))}× too far"
    percent = excess * 100
    if percent == 0:
        return "0 %"
    return "< 0.1 %" if percent < 0.1 else f"{percent:.1f} %" if percent < 10 else f"{percent:.0f} %"


def shape_text(shape: Sequence[int | str]) -> str:
    """``[batch, 3, 224, 224]``; a scalar is ``[]``."""
    return "[" + ", ".join(map(str, shape)) + "]"
