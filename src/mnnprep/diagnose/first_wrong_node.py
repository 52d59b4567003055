"""The node behind a failed comparison with MNN, so that the verdict itself says where to look."""

from __future__ import annotations

from mnnprep.attempt.results import Artifact, AttemptResult, Conversion, Diagnosis, least_sqnr
from mnnprep.comparison.tolerance import Tolerance
from mnnprep.diagnose.bisecting.experiment import ConvertedModel, Failure, OutOfConversions, TrialRunner
from mnnprep.diagnose.bisecting.finding import FaultLocation, Subject, sentence
from mnnprep.diagnose.bisecting.search import SHARE_FOR_VALUES, Search, failing_as, wrong_outputs
from mnnprep.evidence import catalog
from mnnprep.evidence.check import Check, Status
from mnnprep.model.messages import Survey
from mnnprep.model.request import Request
from mnnprep.text import Progress
from mnnprep.workers.failure import StepFailed
from mnnprep.workers.pool import Workers

CONVERSIONS = 12  # pieces of the model that are converted at most


def diagnose_comparison(
    workers: Workers, request: Request, survey: Survey, result: AttemptResult, tell: Progress
) -> list[Diagnosis]:
    """The node that MNN computes wrong first, of an artifact that is itself right, if it is found."""
    check, conversion = result.check(catalog.MNN_COMPARE), result.conversion
    if not result.right or check is None or check.status is not Status.FAILED:
        return []
    if result.artifact is None or conversion is None or conversion.model is None or conversion.mismatch:
        return []
    survey = result.survey or survey
    tell("looking for the node that MNN computes wrong")
    hints = result.runs.mnn.hints if result.runs.mnn else {}
    try:
        found = _find(workers, request, survey, result.artifact, conversion, hints, check)
    except (StepFailed, OutOfConversions):
        return []
    if found is None or not found.labels():
        return []
    alone = found.kind == "node"
    label = found.labels()[0]
    return [Diagnosis(check.check, check.subject, sentence(found), subject=label, alone=alone)]


def _find(
    workers: Workers,
    request: Request,
    survey: Survey,
    artifact: Artifact,
    conversion: Conversion,
    hints: dict[str, int],
    check: Check,
) -> FaultLocation | None:
    assert conversion.model is not None
    sqnr_db = least_sqnr(artifact.original, request.precision)
    lab = TrialRunner(
        workers,
        converter=request.mnnconvert,
        precision=request.precision,
        static=request.static,
        hints=hints,
        tolerance=Tolerance(noise=survey.noise, sqnr_db=sqnr_db, steps=survey.steps),
        tell=lambda _: None,
    )
    lab.limit = CONVERSIONS
    outline = lab.outline(artifact.model, survey.cases[0])
    piece = ConvertedModel(
        artifact.model,
        conversion.model.path,
        conversion.input_names,
        conversion.output_names,
        conversion.layouts,
        hints,
    )
    bad = {e.case for e in check.outputs if e.problem}
    for case in sorted((c for c in survey.cases if c.index in bad), key=lambda c: c.file.size):
        if isinstance(lab.run_all(piece, [case], outline.outputs), Failure):
            continue
        subject = Subject(artifact.model, outline, piece, case, own=True)
        if wrong := wrong_outputs(lab, subject):
            return Search(lab, failing_as(subject, wrong), int(SHARE_FOR_VALUES * lab.peak)).find()
    return None
