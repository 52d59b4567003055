"""What a reader needs from a manifest, in words and numbers: pure functions, shared by every way of showing a bundle."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from mnnprep.bundle.manifest import BundleFile, Manifest
from mnnprep.core.compare import Tolerance
from mnnprep.core.evidence import REQUIRED, USABILITY, Check, OutputError, Status, Verdict, verdict
from mnnprep.core.metrics import CHECK as METRIC

ARTIFACT, MNN = "artifact", "MNN"
STAGES: Mapping[str, str] = {"artifact_compare": ARTIFACT, "mnn_compare": MNN}
DIMENSION = "dimension:"
MEASURED_IN = (ARTIFACT, MNN, "second")  # where a task metric is measured


@dataclass(frozen=True)
class Question:
    """What a check asks, in words, and what to do when it failed or was not run."""

    asks: str
    failed: str
    not_run: str = "prepare the model again; if the check stays not run, its reason says what is missing"


QUESTIONS: Mapping[str, Question] = {
    "inference_mode": Question(
        "Is every layer in inference mode, with no leftover of training?",
        "take the training behaviour out of the source at the place named (call eval(), use training=self.training, keep the BatchNorm statistics)",
    ),
    "determinism": Question(
        "Does the source give the same outputs twice for the same inputs?",
        "make the random numbers an input of the model, then prepare again",
    ),
    "self_contained": Question(
        "Does the artifact run alone, where neither the source nor its code can be reached?",
        "move what the artifact reaches for into the model, or try another `--method`",
    ),
    "weights": Question(
        "Are the artifact's weights the source's weights, value by value?",
        "try another `--method`, and compare the tensors named with the source's",
    ),
    "reference": Question(
        "Did the untouched source run in its own framework on every case?",
        "give inputs that the source computes with: `--samples`, `--range` or `--dim`",
        "install the source's framework (`mnnprep doctor` says how), then prepare again",
    ),
    "artifact_compare": Question(
        "Does the artifact compute what the source computes?",
        "try another `--method` or a higher `--opset`; the attempts say what each of them gave",
    ),
    "mnn_convert": Question(
        "Did MNN's converter take the artifact and write a model that loads?",
        "try another `--method`, `--opset` or `--to`; `mnnprep check` names the operators that MNN does not take",
        "name a converter that has the frontend with `--mnnconvert`, or choose another format with `--to`",
    ),
    "mnn_compare": Question(
        "Does MNN compute what the source computes?",
        "`mnnprep bisect` finds the first node that goes wrong; then try another `--method` or `--opset`",
        "it runs as soon as there is a converted model: resolve mnn_convert first",
    ),
    "mnn_session": Question(
        "Does a Session that is resized from size to size give the same as MNN's Module API?",
        "load the model by the Module API, as the snippets do, or make a new Session for every size",
    ),
    "compare": Question(
        "Do the two models compute the same?",
        "compare each with what it was made from; `--samples` gives them real inputs",
    ),
    "vacuity": Question(
        "Do the cases tell this model from one that always gives the same answer?",
        "give inputs that move every output: `--samples` with real data, or a wider `--range`",
    ),
    "noise": Question(
        "Is the source's own rounding noise small enough to tell a right result from a wrong one?",
        "give inputs of the size the model was trained on: `--samples`, or `--range`",
    ),
    "branches": Question(
        "Do the cases take every path that depends on the data?",
        "give samples that take the other paths, or use `--method script`",
    ),
    "coverage": Question(
        "Do the cases run every branch and loop that the inputs' values decide?",
        "give samples that take the other branch, or fix the input that decides with `--range NAME=VALUE:VALUE`",
        "see why the artifact does not run under onnxruntime's profile",
    ),
    "artifact": Question(
        "Was any artifact made at all?",
        "the attempts say why each method failed; resolve the first of them, or give another `--method`",
    ),
    "samples": Question(
        "Which real inputs were taken, and what values have they?",
        "give other `--samples`",
    ),
    "hashes": Question(
        "Are the bundle's files, byte by byte, those that its manifest names?",
        "take the bundle from where it was made, or prepare the model again",
    ),
    "record": Question(
        "Does the verdict follow from the evidence in the manifest, and the evidence from its own figures?",
        "take the bundle from where it was made, or prepare the model again",
    ),
    "tolerance": Question(
        "Is the stated tolerance the one that the rule gives for what was asked?",
        "prepare the model again: the figures were edited, or made by another rule",
    ),
    "cases": Question(
        "Do the stored cases hold what the signature and their sizes say?",
        "take the bundle from where it was made, or prepare the model again",
    ),
    "report": Question(
        "Is report.html the page that the manifest gives?",
        "write it anew with `mnnprep report`",
    ),
    "signature": Question(
        "Was every file of the bundle signed with the key at hand?",
        "take the bundle from whoever signed it, or ask for the right public key",
        "give the signer's public key with `--key`",
    ),
    "repairs": Question(
        "Does the repaired artifact compute what it computed before the repair?",
        "report the repair that is named: it is a defect of this tool",
    ),
}  # fmt: skip

_DIMENSION_QUESTION = Question(
    "Does every size of this dimension that was tried come out right?",
    "fix the dimension with `--input`, or narrow its range with `--dim` to the sizes that passed",
    "give the dimension a range with `--dim NAME=MIN:MAX`, then prepare again",
)
_METRIC_QUESTION = Question(
    "What do the remaining differences mean for the task, by this metric?",
    "look at the cases it is worst on; with `--fp16` or `--weight-bits`, keep more bits",
    "its reason says what is missing; a function's file is given with `--metric file.py:function`",
)
_UNKNOWN_QUESTION = Question("", "its reason says what was found")


def question(check: str) -> Question:
    """What *check* asks; unknown names get empty words, never an error."""
    if check.startswith(METRIC):
        return _METRIC_QUESTION
    return _DIMENSION_QUESTION if check.startswith(DIMENSION) else QUESTIONS.get(check, _UNKNOWN_QUESTION)


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
    return verdict(manifest.evidence, manifest.signature.dims)


def required_names(dims: Iterable[str]) -> tuple[str, ...]:
    """Every check that a proof with the dynamic dimensions *dims* needs, in the order they are asked."""
    return (*REQUIRED, *(DIMENSION + name for name in dims))


def obstacles(evidence: Sequence[Check], names: Iterable[str] = ()) -> list[Obstacle]:
    """What stands between *evidence* and `proven`: failed checks first, then those not run or absent.

    *names* are the checks that must be there and pass (see :func:`required_names`), whatever they say of
    themselves; others count where they are marked as required.
    """
    wanted = tuple(names)
    found = [
        Obstacle(c.check, c.status, c.subject, c.reason, question(c.check).failed if c.status is Status.FAILED else question(c.check).not_run)
        for c in evidence
        if c.status is not Status.PASSED and (c.required or c.check in wanted or (c.check in USABILITY and c.status is Status.FAILED))
    ]
    present = {c.check for c in evidence}
    absent = [name for name in wanted if name not in present]
    found += [Obstacle(name, Status.NOT_RUN, "", "the evidence does not hold this check", question(name).not_run) for name in absent]
    return sorted(found, key=lambda o: (o.status is not Status.FAILED, o.check not in USABILITY))


def meaning(manifest: Manifest) -> str:
    """What the verdict means for whoever ships the model, in one sentence."""
    cases = f"{len(manifest.cases)} case{'' if len(manifest.cases) == 1 else 's'}"
    outcome = concluded(manifest)
    if outcome is Verdict.PROVEN:
        model = manifest.mnn.path if manifest.mnn else "the converted model"
        sentence = f"On all {cases}, {model} computes in MNN what the untouched source computes in its own framework, within the tolerance."
        return " ".join(filter(None, (sentence, settings(manifest), limits(manifest))))
    if outcome is Verdict.DIFFERS:
        return "Something that was compared came out different: do not ship this model before the failed checks are resolved."
    if outcome is Verdict.REFUSED:
        return "There is no model to ship: nothing usable came out of the source, or MNN's converter did not take it."
    return "Nothing was found to be wrong, but something that a proof needs was not run or proves nothing: treat this model as untested."


def settings(manifest: Manifest) -> str:
    """What an app must set in MNN's runtime to get what was proven; empty where the defaults do."""
    hints = ", ".join(f"{name}={value}" for name, value in manifest.runtime.hints.items())
    if not hints:
        return ""
    excess = next((c.numbers.get("excess_at_default_settings") for c in manifest.evidence if c.check == "mnn_compare"), None)
    otherwise = f"; with MNN's defaults its error is {number(excess)} times the tolerance" if isinstance(excess, (int, float)) else ""
    return f"The app must set {hints} in MNN's runtime{otherwise}."


def limits(manifest: Manifest) -> str:
    """What the source asks of the sizes it is given; empty where nothing was found."""
    asked = [dim.constraint for dim in manifest.signature.dims.values() if dim.constraint]
    return f"The source itself asks for {', '.join(asked)}." if asked else ""


@dataclass(frozen=True)
class Worst:
    """The worst of one output's errors over a set of cases, at one stage (``artifact`` or ``MNN``).

    Each figure is the worst on its own: the largest ``max_abs``, ``max_rel`` and ``excess`` (the share of
    the tolerance used: above 1 fails), the smallest ``cosine`` and ``sqnr_db``; None where no case has
    one.  ``case`` is the case of the largest excess, ``problem`` what is wrong there.  ``output`` is empty
    where a case gave no outputs at all.
    """

    output: str
    stage: str
    case: int
    max_abs: float | None
    max_rel: float | None
    cosine: float | None
    sqnr_db: float | None
    excess: float | None
    problem: str

    @property
    def comparable(self) -> bool:
        """Whether the numbers tell how far it is off (else ``problem`` says why not: a shape, a dtype, a failed run)."""
        return self.excess is not None and (self.excess > 1 or not self.problem)


def _worst(output: str, stage: str, errors: Sequence[OutputError]) -> Worst:
    def extreme(field: str, pick: str) -> float | None:
        values = [value for value in (getattr(e, field) for e in errors) if value is not None]
        return (max(values) if pick == "max" else min(values)) if values else None

    worst = max(errors, key=lambda e: (bool(e.problem), e.excess is None and bool(e.problem), e.excess or 0.0, -e.case))
    return Worst(
        output, stage, worst.case, extreme("max_abs", "max"), extreme("max_rel", "max"), extreme("cosine", "min"),
        extreme("sqnr_db", "min"), extreme("excess", "max"), worst.problem,
    )  # fmt: skip


def _errors(evidence: Iterable[Check]) -> list[tuple[str, OutputError]]:
    return [(STAGES[c.check], e) for c in evidence if c.check in STAGES for e in c.outputs]


def worst_errors(evidence: Iterable[Check]) -> list[Worst]:
    """One row for every output and stage that was compared, over all cases; outputs in order of first appearance."""
    groups: dict[tuple[str, str], list[OutputError]] = {}
    for stage, error in _errors(evidence):
        groups.setdefault((error.output, stage), []).append(error)
    order = {name: i for i, name in enumerate(dict.fromkeys(output for output, _ in groups))}
    keys = sorted(groups, key=lambda key: (order[key[0]], key[1] == MNN))
    return [_worst(output, stage, groups[output, stage]) for output, stage in keys]


def uncompared(evidence: Iterable[Check]) -> list[str]:
    """The stages of which the evidence holds no comparison of outputs."""
    compared = {stage for stage, _ in _errors(evidence)}
    return [stage for stage in (ARTIFACT, MNN) if stage not in compared]


@dataclass(frozen=True)
class Measure:
    """A task metric for reading: its value in every place it was measured, what it must reach, over how many inputs of which kind."""

    name: str
    status: Status
    values: dict[str, str]
    wanted: str
    inputs: str
    reason: str


def measures(evidence: Iterable[Check]) -> list[Measure]:
    """The task metrics in *evidence*, in order."""
    found = []
    for check in (c for c in evidence if c.check.startswith(METRIC)):
        values = {where: _metric_figure(value) for where, value in check.numbers.items() if where in MEASURED_IN}
        inputs = f"{check.numbers['cases']} {check.numbers.get('inputs', '')} cases" if "cases" in check.numbers else ""
        found.append(Measure(check.check.removeprefix(METRIC), check.status, values, check.subject, inputs, check.reason))
    return found


def _metric_figure(value: object) -> str:
    return f"{value:.6g}" if isinstance(value, (int, float)) else str(value)


@dataclass(frozen=True)
class SizeTried:
    """One size of a dynamic dimension: the worst error over the outputs of its cases; None at a stage that was not run."""

    dim: str
    size: int
    proven: bool
    cases: int
    artifact: Worst | None
    mnn: Worst | None


def sizes_tried(manifest: Manifest) -> list[SizeTried]:
    """Every size of every dynamic dimension that a case or the signature's ``proven`` names.

    Its cases are those where the other dimensions are as in case 0 (a size is not blamed for what another
    dimension did); where there is none such, all that have the size.
    """
    errors = _errors(manifest.evidence)
    base = manifest.cases[0].dims if manifest.cases else {}
    rows = []
    for name, dim in manifest.signature.dims.items():
        by_size: dict[int, set[int]] = {size: set() for size in dim.proven}
        for size in dict.fromkeys(c.dims[name] for c in manifest.cases if name in c.dims):
            having = [(index, case.dims) for index, case in enumerate(manifest.cases) if case.dims.get(name) == size]
            alone = [index for index, dims in having if dims == {**base, name: size}]
            by_size[size] = set(alone or (index for index, _ in having))
        for size in sorted(by_size):
            at = {stage: [e for s, e in errors if s == stage and e.case in by_size[size]] for stage in (ARTIFACT, MNN)}
            worst = {stage: _worst("", stage, found) if found else None for stage, found in at.items()}
            rows.append(SizeTried(name, size, size in dim.proven, len(by_size[size]), worst[ARTIFACT], worst[MNN]))
    return rows


def bundle_files(manifest: Manifest) -> list[BundleFile]:
    """Every file that the manifest names in the bundle, once: the MNN model and the artifact first, then by path."""
    first = [*([manifest.mnn] if manifest.mnn else []), *manifest.artifact.files]
    rest = [*(BundleFile(c.path, c.sha256, c.size) for c in manifest.cases), *manifest.files]
    return list({f.path: f for f in [*first, *sorted(rest, key=lambda f: f.path)]}.values())


def tolerance_words(tolerance: Tolerance) -> list[str]:
    """The tolerance as sentences with its numbers."""
    if tolerance.sqnr_db is not None:
        decibels, in_one = number(tolerance.sqnr_db), number(tolerance.sqnr_db - tolerance.case_slack_db)
        first = (
            f"The error of every floating output must stay {decibels} dB below its signal over all cases, and {in_one} dB in each of them "
            "(SQNR = 10 · log10(Σ ref² / Σ (a − b)²))."
        )
    else:
        first = (
            f"Every element of a floating output may be off by at most {number(tolerance.absolute)} of the output's largest magnitude, or "
            f"{number(tolerance.widening)} times its measured noise where that is more, plus {number(tolerance.relative)} of the element itself; "
            f"noise never widens it beyond {number(tolerance.ceiling)} of the largest magnitude."
        )
    return [first, "Integers and booleans must be equal; names, shapes, dtypes and the places of NaN and ±inf too."]


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


def size_text(size: int) -> str:
    """Bytes in decimal units: ``812 B``, ``3.41 MB``."""
    value = float(size)
    for unit in ("B", "kB", "MB", "GB"):
        if value < 999.5 or unit == "GB":
            return f"{size} B" if unit == "B" else f"{value:.3g} {unit}"
        value /= 1000
    raise AssertionError("unreachable")


def shape_text(shape: Sequence[int | str]) -> str:
    """``[batch, 3, 224, 224]``; a scalar is ``[]``."""
    return "[" + ", ".join(map(str, shape)) + "]"
