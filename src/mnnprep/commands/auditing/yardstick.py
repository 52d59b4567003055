"""The tolerance that a bundle must be held to.

From the rule and from what was asked for, never from its own figures.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Any

import msgspec

from mnnprep.bundle.manifest import Manifest
from mnnprep.comparison.noise import LEAST_CASES, lost_in_noise, real
from mnnprep.comparison.tolerance import ARTIFACT_SQNR, Tolerance
from mnnprep.errors import RefusedError
from mnnprep.evidence import catalog
from mnnprep.evidence.check import Check, Status
from mnnprep.formats.registry import steps_of
from mnnprep.model.files import Arrays
from mnnprep.model.precision import Precision

STRICTER_WHEN_LESS = ("absolute", "relative", "widening", "ceiling", "case_slack_db")


def ruled(manifest: Manifest) -> tuple[Tolerance, Tolerance]:
    """Return the tolerances that the rule gives.

    They are the artifact's and the converted model's, with the noise that the manifest states.

    Raises:
        RefusedError: a precision that no call could have asked for.
    """
    artifact, asked = artifact_sqnr(manifest), _precision(manifest.source.options).sqnr_db
    own = (
        manifest.artifact.sqnr_db if manifest.artifact.sqnr_db is not None and artifact is not None else None
    )
    model = min((db for db in (artifact if own is not None else None, asked) if db is not None), default=None)
    noise, steps = manifest.tolerance.noise, manifest.tolerance.steps
    return (
        Tolerance(noise=noise, sqnr_db=artifact if own is not None else None, steps=steps),
        Tolerance(noise=noise, sqnr_db=model, steps=steps),
    )


def artifact_sqnr(manifest: Manifest) -> float | None:
    """Return the SQNR at which such an artifact may differ from its source.

    None if it holds the source's numbers.
    """
    if manifest.artifact.format == "tflite":
        return ARTIFACT_SQNR.get(str(manifest.source.options.get("tflite_precision", "")))
    recipes = steps_of(manifest.source.kind).recipes
    return next((r.sqnr_db for r in recipes if r.target == manifest.artifact.format), None)


def _precision(options: Mapping[str, Any]) -> Precision:
    try:
        precision = msgspec.convert(options.get("precision", {}), Precision)
    except msgspec.ValidationError as error:
        raise RefusedError(
            "the bundle's manifest states an invalid precision",
            seen=str(error),
            next="prepare the model again",
        ) from error
    if precision.budget is not None and not 0 < precision.budget < math.inf:
        raise RefusedError(
            "the bundle's manifest states a budget at which the error may be larger than the signal",
            seen=f"{precision.budget:g} dB",
            next="prepare the model again",
        )
    return precision


def laxer(manifest: Manifest) -> list[str]:
    """Say in words if the manifest's own figures are laxer than the rule."""
    stated, rule = manifest.tolerance, Tolerance()
    words = [
        f"{name} is {getattr(stated, name):g}, but the rule has {getattr(rule, name):g}"
        for name in STRICTER_WHEN_LESS
        if not getattr(stated, name) <= getattr(rule, name)
    ]
    artifact, model = ruled(manifest)
    pairs = (
        ("the artifact's SQNR", manifest.artifact.sqnr_db, artifact.sqnr_db),
        ("the SQNR", stated.sqnr_db, model.sqnr_db),
    )
    for what, recorded, least in pairs:
        if recorded is not None and (least is None or not recorded >= least):
            wanted = "float32's own tolerance" if least is None else f"{least:g} dB"
            words.append(f"{what} is {recorded:g} dB, but the options of the run give {wanted}")
    return words


def lost_cases(manifest: Manifest, cases: Iterable[Arrays]) -> list[str]:
    """Say which cases the stated noise would set aside beyond what a proof may go without.

    *cases* are their arrays.

    A bundle whose noise check failed when it was made is not proven anyway.
    """
    if any(c.check == catalog.NOISE.name and c.status is Status.FAILED for c in manifest.evidence):
        return []
    rule = Tolerance(noise=manifest.tolerance.noise, steps=manifest.tolerance.steps)
    found = {
        index: said
        for index, arrays in enumerate(cases)
        if (
            said := lost_in_noise(
                rule,
                index,
                {n.removeprefix("outputs/"): a for n, a in arrays.items() if n.startswith("outputs/")},
            )
        )
    }
    words = [
        f"the stated noise would set aside the real inputs of case {index}: {said}"
        for index, said in found.items()
        if real(manifest.cases[index].origin)
    ]
    count = len(manifest.cases)
    if count - len(found) < min(LEAST_CASES, count):
        words.append(f"the stated noise would set aside {len(found)} of {count} cases")
    return words


def impossible(noise: Mapping[str, Any], outputs: Iterable[str], cases: int) -> list[str]:
    """Statements of noise that no measurement gives, in words."""
    known = set(outputs)
    words = []
    for name, stated in noise.items():
        floors = stated if isinstance(stated, list) else [stated]
        if name not in known:
            words.append(f"noise is stated for {name}, which is not an output")
        elif len(floors) > max(cases, 1) or not all(
            floor is None or 0 <= floor < math.inf for floor in floors
        ):
            words.append(f"the noise stated for {name} is {stated}")
    return words


def tolerance_check(manifest: Manifest, cases: Iterable[Arrays]) -> Check:
    """The ``tolerance`` check: the manifest states no laxer one than the rule gives for what was asked."""
    outputs = [t.name for t in manifest.signature.outputs]
    words = [*laxer(manifest), *impossible(manifest.tolerance.noise, outputs, len(manifest.cases))]
    words = words or lost_cases(manifest, cases)
    return catalog.TOLERANCE.failed("; ".join(words[:5])) if words else catalog.TOLERANCE.passed()
