"""The node at which a size was frozen: the source is exported at another size, and the two compared."""

from __future__ import annotations

import msgspec

from mnnprep.attempt.results import AttemptResult, Diagnosis
from mnnprep.evidence import catalog
from mnnprep.evidence.check import Check, Status
from mnnprep.formats.backend import ExportRecipe, SourceSteps
from mnnprep.formats.onnx.backend import DIFF
from mnnprep.formats.registry import ARTIFACTS
from mnnprep.model.messages import DiffJob, Exported, ExportJob, InputSpecs, Source, Survey
from mnnprep.model.signature import Dim
from mnnprep.workers.failure import StepFailed
from mnnprep.workers.pool import Workers

SHOWN = 3


def diagnose_dimensions(
    workers: Workers,
    steps: SourceSteps,
    source: Source,
    wants: InputSpecs,
    survey: Survey,
    result: AttemptResult,
) -> list[Diagnosis]:
    """For each failed ``dimension:NAME``: the node that has the size of the export in it, if one has.

    What can't be exported at the other size, or comes out the same, gives none.
    """
    compare = result.check(catalog.ARTIFACT_COMPARE)
    exported = result.exported
    if exported is None or compare is None or compare.status is not Status.FAILED:
        return []
    if not ARTIFACTS[exported.format].by_rules:
        return []
    made = result.artifact.original if result.artifact else exported
    bad = {error.case for error in compare.outputs if error.problem}
    base = survey.cases[0].dims
    found = []
    for check in result.checks:
        if not catalog.DIMENSION.has(check.check) or check.status is not Status.FAILED:
            continue
        moved = [
            c.dims for c in survey.cases if c.index in bad and c.dims[check.subject] != base[check.subject]
        ]
        if not moved:
            continue
        nodes = _differing(workers, steps, source, wants, result.recipe, made, moved[-1])
        if nodes:
            found.append(_diagnosis(check, nodes, base[check.subject]))
    return found


def _differing(
    workers: Workers,
    steps: SourceSteps,
    source: Source,
    wants: InputSpecs,
    recipe: ExportRecipe,
    made: Exported,
    sizes: dict[str, int],
) -> list[str]:
    """The nodes of *made* that are others when the source is exported at *sizes*."""
    there = msgspec.structs.replace(
        wants, samples="", dims=tuple(Dim(name, size, size) for name, size in sizes.items())
    )
    job = ExportJob(
        source=source,
        wants=there,
        method=recipe.method,
        opset=made.opset,
        directory=str(workers.directory("export")),
        places=True,
    )
    try:
        other = workers.run(steps.export, job)
        files = DiffJob(first=made.files[0].path, second=other.files[0].path)
        return workers.run(DIFF, files).nodes
    except StepFailed:
        return []


def _diagnosis(check: Check, nodes: list[str], size: int) -> Diagnosis:
    more = f"; and {len(nodes) - 1} more" if len(nodes) > 1 else ""
    words = f"the export kept {check.subject}={size} as a constant, first in {nodes[0]}{more}"
    return Diagnosis(check.check, check.subject, words, numbers={"baked": nodes[:SHOWN]}, before=True)
