"""The node behind a failed comparison with MNN, so that the verdict itself says where to look."""

from __future__ import annotations

import msgspec

from mnnprep.core.messages import Survey
from mnnprep.core.request import Request
from mnnprep.evidence import catalog
from mnnprep.evidence.check import Check, Status
from mnnprep.isolate.host import StepFailed
from mnnprep.pipeline.bisect import SHARE_FOR_VALUES, sentence
from mnnprep.pipeline.bisecting.finding import Finding, Subject
from mnnprep.pipeline.bisecting.lab import Failure, Lab, OutOfConversions, Piece
from mnnprep.pipeline.bisecting.search import Search, failing_as, wrong_outputs
from mnnprep.pipeline.making import Tell
from mnnprep.pipeline.tried import Tried, why_not
from mnnprep.pipeline.workers import Workers

CONVERSIONS = 12  # pieces of the model that are converted at most


def name_wrong(workers: Workers, request: Request, survey: Survey, tried: Tried, tell: Tell) -> None:
    """Say in a failed ``mnn_compare`` of an ONNX artifact that is itself right which node MNN computes wrong
    first, if that is found.
    """
    check = next((c for c in tried.checks if c.check == catalog.MNN_COMPARE.name), None)
    right = (
        tried.exported is not None
        and tried.exported.format == "onnx"
        and tried.status(catalog.ARTIFACT_COMPARE) is Status.PASSED
    )
    if (
        not right
        or check is None
        or check.status is not Status.FAILED
        or tried.mnn is None
        or not tried.output_names
    ):
        return
    tell("looking for the node that MNN computes wrong")
    try:
        found = _find(workers, request, survey, tried, check)
    except (StepFailed, OutOfConversions):
        return
    if found is not None and found.labels():
        named = msgspec.structs.replace(
            check, reason=f"{check.reason}; {sentence(found)}", subject=found.labels()[0]
        )
        tried.checks[tried.checks.index(check)] = named
        tried.reason = why_not(tried.checks)


def _find(workers: Workers, request: Request, survey: Survey, tried: Tried, check: Check) -> Finding | None:
    assert tried.mnn is not None
    lab = Lab(
        workers,
        converter=request.mnnconvert,
        precision=request.precision,
        static=request.static,
        hints=tried.hints,
        tolerance=tried.mnn_tolerance,
        tell=lambda _: None,
    )
    lab.limit = CONVERSIONS
    outline = lab.outline(tried.model, survey.cases[0])
    piece = Piece(
        tried.model, tried.mnn.path, tried.input_names, tried.output_names, tried.layouts, tried.hints
    )
    bad = {e.case for e in check.outputs if e.problem}
    for case in sorted((c for c in survey.cases if c.index in bad), key=lambda c: c.file.size):
        if isinstance(lab.run_all(piece, [case], outline.outputs), Failure):
            continue
        subject = Subject(tried.model, outline, piece, case, own=True)
        if wrong := wrong_outputs(lab, subject):
            return Search(lab, failing_as(subject, wrong), int(SHARE_FOR_VALUES * lab.peak)).find()
    return None
