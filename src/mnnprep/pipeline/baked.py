"""Where a size was baked in: the source is exported once more at another size, and the two artifacts are
compared.
"""

from __future__ import annotations

import msgspec

from mnnprep.core.messages import DiffJob, Exported, ExportJob, Source, Survey, Wants
from mnnprep.core.signature import Dim
from mnnprep.evidence import catalog
from mnnprep.evidence.check import Check, Status
from mnnprep.formats.backend import SourceSteps
from mnnprep.formats.onnx.backend import DIFF
from mnnprep.isolate.host import StepFailed
from mnnprep.pipeline.tried import Tried, why_not
from mnnprep.pipeline.workers import Workers

SHOWN = 3


def name_baked(
    workers: Workers, steps: SourceSteps, source: Source, wants: Wants, survey: Survey, tried: Tried
) -> None:
    """Say in each failed ``dimension:NAME`` of an ONNX artifact which node has the size of the export in it,
    if one has.

    What can't be exported at the other size, or comes out the same, leaves the check as it was.
    """
    if (
        tried.exported is None
        or tried.exported.format != "onnx"
        or tried.status(catalog.ARTIFACT_COMPARE) is not Status.FAILED
    ):
        return
    bad = {
        e.case
        for c in tried.checks
        if c.check == catalog.ARTIFACT_COMPARE.name
        for e in c.outputs
        if e.problem
    }
    base = survey.cases[0].dims
    for index, check in enumerate(tried.checks):
        if not catalog.DIMENSION.has(check.check) or check.status is not Status.FAILED:
            continue
        sizes = [
            c.dims for c in survey.cases if c.index in bad and c.dims[check.subject] != base[check.subject]
        ]
        if not sizes:
            continue
        nodes = _differing(workers, steps, source, wants, tried, tried.original or tried.exported, sizes[-1])
        if nodes:
            tried.checks[index] = _naming(check, nodes, base[check.subject])
    tried.reason = why_not(tried.checks)


def _differing(
    workers: Workers,
    steps: SourceSteps,
    source: Source,
    wants: Wants,
    tried: Tried,
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
        method=tried.attempt.method,
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


def _naming(check: Check, nodes: list[str], size: int) -> Check:
    more = f"; and {len(nodes) - 1} more" if len(nodes) > 1 else ""
    reason = (
        f"the export kept {check.subject}={size} as a constant, first in {nodes[0]}{more}; {check.reason}"
    )
    return msgspec.structs.replace(check, reason=reason, numbers={**check.numbers, "baked": nodes[:SHOWN]})
