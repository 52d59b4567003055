"""The search in a model that MNN's converter refuses, or crashes on: the node whose addition does it."""

from __future__ import annotations

from mnnprep.diagnose.bisecting.experiment import (
    ConvertedModel,
    Failure,
    OutOfConversions,
    Trial,
    TrialRunner,
)
from mnnprep.diagnose.bisecting.finding import FaultLocation, Subject
from mnnprep.diagnose.bisecting.suspects import Suspects
from mnnprep.diagnose.minimize import LIMIT, minimize
from mnnprep.formats.onnx.excerpt import ExcerptJob
from mnnprep.formats.onnx.outline import Outline
from mnnprep.model.messages import CaseFile
from mnnprep.workers.failure import StepFailed


def find_unconvertible(
    lab: TrialRunner, model: str, outline: Outline, case: CaseFile, failure: Failure, where: str = ""
) -> FaultLocation:
    """Find the node without which *model* converts.

    The converter may name its operator; else it is the last of the smallest part that fails.
    """
    subject = Subject(model, outline, ConvertedModel(model, "", {}, {}, {}, {}), case, where, failure)
    search = _Search(lab, subject, failure)
    try:
        return search.named() or search.minimized()
    except OutOfConversions:
        return FaultLocation(
            "unresolved", subject, failure=failure, reason=f"the bound of {lab.limit} conversions was reached"
        )


class _NoValues(Exception):
    """onnxruntime has no values to feed the node that is to be run alone."""


class _Search:
    def __init__(self, lab: TrialRunner, subject: Subject, failure: Failure) -> None:
        self.lab = lab
        self.subject = subject
        self.failure = failure
        self.suspects = Suspects(subject.outline, [o for node in subject.outline.nodes for o in node.outputs])
        constants = self.suspects.constants
        self.order = [
            i for i, node in enumerate(subject.outline.nodes) if any(o not in constants for o in node.outputs)
        ]
        self.shown: Trial | None = None  # the smallest that failed so far, and its nodes
        self.shown_nodes: list[int] = []

    def named(self) -> FaultLocation | None:
        """Return the first node of an operator that the converter names as unsupported.

        The node must be refused alone as well.
        """
        for node in self.order:
            if self.subject.outline.nodes[node].op in self.failure.refused_ops:
                trial = self._alone([node])
                if trial is not None and isinstance(trial.result, Failure):
                    return self._found("node", [node], trial)
                return None
        return None

    def minimized(self) -> FaultLocation:
        """The last node of the smallest part that fails; the others are its context."""
        self.lab.tell(f"halving over {len(self.order)} nodes, one conversion each time")
        try:
            numbers = minimize(len(self.order), self._part_fails, self._needs(), LIMIT)
            part = [self.order[n] for n in numbers]
            if self.shown_nodes != part:
                self._fails_alone(part)
        except _NoValues as failed:
            (node,) = failed.args
            reason = "what this node takes can't be computed by onnxruntime, so it was not run alone"
            return self._found("node", [node], None, reason)
        if self.shown is None:
            reason = "the model converts up to this node and not with it, but no piece of it fails alone"
            return self._found("unresolved", part[-1:], None, reason)
        if len(part) == 1:
            return self._found("node", part, self.shown)
        reason = "this node converts alone, and not together with those before it"
        return self._found("context", part[-1:], self.shown, reason)

    def _found(self, kind: str, nodes: list[int], trial: Trial | None, reason: str = "") -> FaultLocation:
        failure = trial.result if trial is not None and isinstance(trial.result, Failure) else self.failure
        return FaultLocation(
            kind,
            self.subject,
            nodes=tuple(nodes),
            value=self.subject.outline.nodes[nodes[-1]].outputs[0] if nodes else "",
            reason=reason,
            failure=failure,
            trial=trial,
        )

    def _needs(self) -> list[list[int]]:
        """What each node of the order takes something from, by the places in it."""
        places = {node: place for place, node in enumerate(self.order)}
        producer = self.suspects.producer
        return [
            [
                places[producer[n]]
                for n in self.subject.outline.nodes[node].inputs
                if producer.get(n) in places
            ]
            for node in self.order
        ]

    def _part_fails(self, numbers: list[int]) -> bool:
        """Whether these nodes of the order fail to convert.

        They are converted from the model's inputs on if they take no more, else alone.
        """
        if len(numbers) == len(self.order):
            return True
        nodes = [self.order[n] for n in numbers]
        beginning = numbers[-1] == len(numbers) - 1
        closed = set(self.suspects.boundary(nodes)) <= set(self.subject.outline.inputs)
        if beginning or (closed and len(nodes) > 1 and self.shown is None):
            return self._fails_from_inputs(nodes)
        try:
            return self._fails_alone(nodes)
        except OutOfConversions:
            if self.shown is None:
                raise
            return False  # what has been shown stands

    def _fails_alone(self, nodes: list[int]) -> bool:
        trial = self._alone(nodes)
        if trial is None and len(nodes) == 1:
            raise _NoValues(nodes[0])
        if trial is None or not isinstance(trial.result, Failure):
            return False
        self.shown, self.shown_nodes = trial, nodes
        return True

    def _alone(self, nodes: list[int]) -> Trial | None:
        """The nodes alone; None if onnxruntime has no values to feed them."""
        try:
            return self.lab.trial(
                self.subject.model,
                [*self.suspects.constant_nodes(nodes), *nodes],
                self.suspects.boundary(nodes),
                self._outputs(nodes),
                self.subject.case,
                shapes=self.suspects.shapes,
            )
        except StepFailed:
            return None

    def _outputs(self, nodes: list[int]) -> list[str]:
        return [o for o in self.suspects.made_for_others(nodes) if o not in self.suspects.constants]

    def _fails_from_inputs(self, nodes: list[int]) -> bool:
        outputs = self._outputs(nodes)
        if not outputs:
            return False
        job = ExcerptJob(
            model=self.subject.model,
            nodes=[*self.suspects.constant_nodes(nodes), *nodes],
            outputs=outputs,
            linked=True,
            values=[self.subject.case.file.path],
            directory=str(self.lab.workers.directory("prefix")),
        )
        cut = self.lab.excerpt(job)
        return isinstance(
            self.lab.convert(cut.files[0].path, cut.inputs, cut.outputs, cut.files[0].sha256), Failure
        )
