"""Whether the record agrees with itself and with the stored cases.

Its words must be known, its statuses must follow from its figures.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from mnnprep.bundle.intact import IntactFiles
from mnnprep.bundle.manifest import Manifest, TensorRecord
from mnnprep.bundle.manifest_view import STAGES, concluded
from mnnprep.errors import RefusedError
from mnnprep.evidence import catalog
from mnnprep.evidence.check import Check, Status
from mnnprep.evidence.verdict import PREPARE
from mnnprep.formats.registry import ARTIFACTS, SOURCE_KINDS
from mnnprep.mnn.boundary import LAYOUTS
from mnnprep.mnn.run import HINTS
from mnnprep.model.files import Arrays
from mnnprep.model.signature import DTYPES, extent_size, names_in

NEWER = "verify it with the version of mnnprep that made it, or prepare the model again"
SHOWN = 5
ROUNDED = 0.01  # dB: figures are kept to two digits


def require_known(manifest: Manifest) -> None:
    """Require that this version knows every word of the record.

    Nothing may be passed over in silence.

    Raises:
        RefusedError: it does not know a word.
    """
    tensors = [*manifest.signature.inputs, *manifest.signature.outputs]
    runtime = manifest.runtime
    unknown = [
        *(f"source.kind {manifest.source.kind}" for _ in [0] if manifest.source.kind not in SOURCE_KINDS),
        *(
            f"artifact.format {manifest.artifact.format}"
            for _ in [0]
            if manifest.artifact.format not in ARTIFACTS
        ),
        *(f"dtype {d} of {t.name}" for t in tensors for d in (t.dtype, t.mnn_dtype) if d not in DTYPES),
        *(f"layout {t.layout} of {t.name}" for t in tensors if t.layout not in LAYOUTS),
        *(f"check {c.check}" for c in manifest.evidence if not PREPARE.fits(c.check)),
        *(f"hint {name}" for name in runtime.hints if name not in HINTS),
        *(
            f"runtime {runtime.backend} {runtime.precision} {runtime.threads}"
            for _ in [0]
            if (runtime.backend, runtime.precision, runtime.threads) != ("CPU", "high", 1)
        ),
    ]
    if unknown:
        raise RefusedError(
            "the bundle's manifest uses a word that this version does not know",
            seen=", ".join(unknown[:SHOWN]),
            next=NEWER,
        )
    if not manifest.artifact.files:
        raise RefusedError(
            "the bundle's manifest names no artifact",
            seen=manifest.artifact.format,
            next="prepare the model again",
        )


def record_check(manifest: Manifest) -> Check:
    """The ``record`` check: the verdict, the statuses and the sizes follow from the figures beside them."""
    words = [*_verdicts(manifest), *_comparisons(manifest), *_sizes(manifest)]
    return catalog.RECORD.failed("; ".join(words[:SHOWN])) if words else catalog.RECORD.passed()


def _verdicts(manifest: Manifest) -> list[str]:
    found = concluded(manifest)
    words = (
        []
        if found is manifest.verdict
        else [f"it claims {manifest.verdict.value}, and its evidence gives {found.value}"]
    )
    names = [c.check for c in manifest.evidence if c.check in STAGES or catalog.DIMENSION.has(c.check)]
    words += [
        f"{name} appears twice in the evidence" for name in dict.fromkeys(names) if names.count(name) > 1
    ]
    counted = next(
        (
            c.numbers.get("cases")
            for c in manifest.evidence
            if c.check == catalog.REFERENCE.name and c.status is Status.PASSED
        ),
        None,
    )
    if counted is not None and counted != len(manifest.cases):
        words.append(f"the reference ran on {counted} cases, and there are {len(manifest.cases)}")
    if manifest.mnn is None and any(
        c.status is Status.PASSED for c in manifest.evidence if c.check == catalog.MNN_COMPARE.name
    ):
        words.append("mnn_compare passed without a converted model")
    return words


def _comparisons(manifest: Manifest) -> list[str]:
    """Checks that passed although their own figures say otherwise, or say too little."""
    wanted = {(t.name, case) for t in manifest.signature.outputs for case in range(len(manifest.cases))}
    words = []
    for check in (c for c in manifest.evidence if c.status is Status.PASSED):
        bad = [e for e in check.outputs if e.problem or (e.excess is not None and not e.excess <= 1)]
        words += [
            f"{check.check} passed with {e.output} in case {e.case} beyond the tolerance" for e in bad[:1]
        ]
        if check.check not in STAGES:
            continue
        compared = {(e.output, e.case) for e in check.outputs}
        if compared != wanted:
            name, case = min(compared ^ wanted)
            words.append(
                f"{check.check} passed with {'no' if (name, case) in wanted else 'an unknown'} figure of"
                f" {name} in case {case}"
            )
        least = (
            manifest.artifact.sqnr_db
            if check.check == catalog.ARTIFACT_COMPARE.name
            else manifest.tolerance.sqnr_db
        )
        figures = {
            n.partition(":")[2]: v
            for n, v in check.numbers.items()
            if n.startswith("sqnr_db:") and isinstance(v, (int, float))
        }
        low = [name for name, value in figures.items() if least is not None and not value >= least - ROUNDED]
        words += [f"{check.check} passed with {name} below {least:g} dB" for name in low[:1]]
    return words


def _sizes(manifest: Manifest) -> list[str]:
    """Sizes that are called proven without a case that passed everywhere."""
    stages = [next((c for c in manifest.evidence if c.check == name), None) for name in STAGES]
    ran = all(c is not None and c.outputs for c in stages)
    bad = {e.case for c in stages if c is not None for e in c.outputs if e.problem}
    known = set(manifest.signature.dims)
    named = {n for t in manifest.signature.inputs for e in t.shape for n in names_in(e)}
    words = [
        f"{name} is a dimension of an input, but the manifest does not record it"
        for name in sorted(named - known)
    ]
    words += [
        f"case {i} has sizes of other dimensions"
        for i, c in enumerate(manifest.cases)
        if set(c.dims) != known
    ][:1]
    for name, dim in manifest.signature.dims.items():
        sizes = {c.dims[name] for c in manifest.cases if name in c.dims}
        wrong = {c.dims[name] for i, c in enumerate(manifest.cases) if name in c.dims and i in bad}
        good = sizes - wrong if ran else set()
        words += [
            f"{name}={size} is called proven, but no case has it" for size in dim.proven if size not in good
        ][:1]
        words += [
            f"{name}={size} is called proven outside its range"
            for size in dim.proven
            if not _within(size, dim.min, dim.max)
        ][:1]
        check = next(
            (
                c
                for c in manifest.evidence
                if c.check == catalog.DIMENSION.of(name).name and c.status is Status.PASSED
            ),
            None,
        )
        if check is not None and (
            wrong or len(dim.proven) < (1 if dim.min == dim.max and dim.min is not None else 2)
        ):
            words.append(f"{check.check} passed with {len(dim.proven)} sizes proven and {len(wrong)} wrong")
    return words


def _within(size: int, least: int | None, most: int | None) -> bool:
    return (least is None or size >= least) and (most is None or size <= most)


def cases_check(bundle: Path, manifest: Manifest) -> Check:
    """Make the ``cases`` check.

    Each stored case holds what the signature and its own sizes say, inputs and outputs.
    """
    words: list[str] = []
    for index, arrays in enumerate(stored_cases(bundle, manifest)):
        sizes = dict(manifest.cases[index].dims)
        for role, tensors in (("inputs", manifest.signature.inputs), ("outputs", manifest.signature.outputs)):
            held = {name.partition("/")[2] for name in arrays if name.startswith(f"{role}/")}
            if held != {t.name for t in tensors}:
                words.append(f"case {index} has other {role} than the signature")
                continue
            words += [
                f"case {index}: {told}"
                for t in tensors
                if (told := _misfit(t, arrays[f"{role}/{t.name}"], sizes))
            ]
    return (
        catalog.CASES.failed("; ".join(words[:SHOWN]))
        if words
        else catalog.CASES.passed(numbers={"cases": len(manifest.cases)})
    )


def _misfit(tensor: TensorRecord, array: object, sizes: dict[str, int]) -> str:
    """How an array is not what *tensor* says at these sizes; empty if it is.

    An axis of no named dimension may be of any size.
    """
    shape, dtype = list(getattr(array, "shape", ())), str(getattr(array, "dtype", ""))
    wanted = [extent_size(e, sizes) if sizes.keys() >= set(names_in(e)) else "any" for e in tensor.shape]
    fits = len(shape) == len(wanted) and all(w in ("any", n) for w, n in zip(wanted, shape, strict=True))
    return (
        ""
        if fits and dtype == tensor.dtype
        else f"{tensor.name} is {dtype}{shape}, but the signature states {tensor.dtype}{wanted}"
    )


def stored_cases(bundle: Path, manifest: Manifest) -> Iterable[Arrays]:
    """The arrays of each case, one case at a time.

    Raises:
        RefusedError: a file that holds no arrays.
    """
    files = IntactFiles(bundle, manifest)
    return map(files.arrays, range(len(manifest.cases)))
