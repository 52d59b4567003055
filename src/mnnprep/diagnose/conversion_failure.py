"""The node at which MNN's converter crashes or fails without naming one."""

from __future__ import annotations

from mnnprep.attempt.builder import ArtifactBuilder
from mnnprep.attempt.refused_nodes import cut_short
from mnnprep.attempt.results import Artifact, AttemptResult, ConversionDeath, Diagnosis
from mnnprep.diagnose.minimize import smallest_part
from mnnprep.evidence import catalog
from mnnprep.workers.failure import StepFailed


def diagnose_conversion(builder: ArtifactBuilder, result: AttemptResult) -> list[Diagnosis]:
    """The smallest part of the artifact that makes the converter fail in the same way."""
    artifact, conversion = result.artifact, result.conversion
    if artifact is None or conversion is None or conversion.death is None:
        return []
    builder.tell(f"looking for the nodes that MNN's converter fails on ({result.recipe.method})")
    found = smallest_part(
        builder.workers,
        artifact.format,
        artifact.model,
        lambda part: _death(builder, artifact, part) == conversion.death,
    )
    part = ", ".join(cut_short(found))
    if not part:
        return []
    words = f"the smallest part that makes it do so: {part}"
    return [Diagnosis(catalog.MNN_CONVERT.name, conversion.check.subject, words, subject=part)]


def _death(builder: ArtifactBuilder, artifact: Artifact, part: str) -> ConversionDeath | None:
    """How MNN fails to convert the *part* in the file of that path, None if it converts it."""
    try:
        return builder.convert(artifact, part).result().value.mishap
    except StepFailed as failure:
        return failure.death
