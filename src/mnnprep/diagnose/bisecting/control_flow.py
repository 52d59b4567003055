"""The search goes on inside control flow: the body that ran, as a model of its own, on what it was given."""

from __future__ import annotations

from mnnprep.diagnose.bisecting.experiment import Failure, OutOfConversions, TrialRunner
from mnnprep.diagnose.bisecting.finding import FaultLocation, Subject
from mnnprep.diagnose.bisecting.search import Search, failing_as, wrong_outputs
from mnnprep.diagnose.bisecting.unconvertible import find_unconvertible
from mnnprep.formats.onnx.body import BODY, BodyJob
from mnnprep.model.messages import CaseFile
from mnnprep.workers.failure import StepFailed

DEEPEST = 4  # control flow in control flow


def look_inside(lab: TrialRunner, finding: FaultLocation, budget: int, depth: int = 0) -> None:
    """Look for the node in the body of *finding*, if that is one If or Loop.

    What was found there is noted as ``inner``.

    If the body is right when run by itself, there is none: the fault is the control flow's own.
    """
    outline = finding.subject.outline
    if (
        len(finding.nodes) != 1
        or outline.nodes[finding.nodes[0]].op not in ("If", "Loop")
        or depth == DEEPEST
    ):
        return
    number = finding.nodes[0]
    try:
        found = _inside(lab, finding, number, budget)
    except (StepFailed, OutOfConversions):
        return
    if found is not None and found.kind != "stale":
        finding.inner = found
        look_inside(lab, found, budget, depth + 1)


def _inside(lab: TrialRunner, finding: FaultLocation, number: int, budget: int) -> FaultLocation | None:
    subject = finding.subject
    node = subject.outline.nodes[number]
    lab.tell(f"looking into {node.label}")
    initializers = set(subject.outline.initializers)
    values = lab.reference(subject.model, [n for n in node.inputs if n not in initializers], subject.case)
    job = BodyJob(
        model=subject.model, node=number, values=values, directory=str(lab.workers.directory("body"))
    )
    body = lab.do(BODY, job)
    if not body.cases or not body.excerpt.outputs or not body.excerpt.inputs:
        return None
    where = f"{body.attribute} of {node.label}" + (f" in {subject.where}" if subject.where else "")
    model = body.excerpt.files[0]
    cases = [
        CaseFile(index=i, origin="a run of the body", dims={}, file=ref) for i, ref in enumerate(body.cases)
    ]
    outline = lab.outline(model.path, cases[0])
    piece = lab.convert(model.path, body.excerpt.inputs, body.excerpt.outputs, model.sha256)
    if isinstance(piece, Failure):
        return find_unconvertible(lab, model.path, outline, cases[0], piece, where)
    for case in cases:
        inner = Subject(model.path, outline, piece, case, where)
        wrong = wrong_outputs(lab, inner)
        if wrong:
            return Search(lab, failing_as(inner, wrong), budget).find()
    return None
