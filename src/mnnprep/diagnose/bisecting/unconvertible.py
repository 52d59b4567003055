"""The search in a model that MNN's converter refuses, or crashes on: the node whose addition does it."""

from __future__ import annotations

from mnnprep.diagnose.bisecting.experiment import Failure, OutOfConversions, Piece, Trial, TrialRunner
from mnnprep.diagnose.bisecting.finding import Finding, Subject
from mnnprep.diagnose.bisecting.suspects import Suspects
from mnnprep.formats.onnx.excerpt import ExcerptJob
from mnnprep.formats.onnx.outline import Outline
from mnnprep.model.messages import CaseFile
from mnnprep.workers.failure import StepFailed


def find_unconvertible(
    lab: TrialRunner, model: str, outline: Outline, case: CaseFile, failure: Failure, where: str = ""
) -> Finding:
    """The node without which *model* converts: by its operator where the converter names one, else by halving
    over prefixes.
    """
    subject = Subject(model, outline, Piece(model, "", {}, {}, {}, {}), case, where, failure)
    search = _Prefixes(lab, subject, failure)
    try:
        return search.named() or search.halved()
    except OutOfConversions:
        return Finding(
            "unresolved", subject, failure=failure, reason=f"the bound of {lab.limit} conversions was reached"
        )


class _Prefixes:
    def __init__(self, lab: TrialRunner, subject: Subject, failure: Failure) -> None:
        self.lab = lab
        self.subject = subject
        self.failure = failure
        self.suspects = Suspects(subject.outline, [o for node in subject.outline.nodes for o in node.outputs])
        constants = self.suspects.constants
        self.order = [
            i for i, node in enumerate(subject.outline.nodes) if any(o not in constants for o in node.outputs)
        ]

    def named(self) -> Finding | None:
        """The first node of an operator that the converter names as unsupported, where it is refused alone as
        well.
        """
        for node in self.order:
            if self.subject.outline.nodes[node].op in self.failure.refused_ops:
                trial = self._alone([node])
                if trial is not None and isinstance(trial.result, Failure):
                    return self._found("node", [node], trial)
                return None
        return None

    def halved(self) -> Finding:
        right, wrong = 0, len(self.order)
        self.lab.tell(f"halving over {wrong} nodes, one conversion each time")
        while wrong - right > 1:
            middle = (right + wrong) // 2
            if self._prefix_fails(middle):
                wrong = middle
            else:
                right = middle
        node = self.order[wrong - 1]
        trial = self._alone([node])
        if trial is None:
            found = self._found("node", [node], None)
            found.reason = "onnxruntime can't compute this node's inputs, so the node was not run alone"
            return found
        hops = 1
        nodes = [node]
        while not isinstance(trial.result, Failure):
            wider = [i for i in self.suspects.grown([node], hops) if i <= node]
            if wider == nodes:
                found = self._found("unresolved", [node], None)
                found.reason = (
                    "the model converts up to this node and not with it, but no piece of it fails alone"
                )
                return found
            nodes, hops = wider, hops * 2
            trial = self._alone(nodes) or trial
        if len(nodes) == 1:
            return self._found("node", nodes, trial)
        found = self._found("context", [node], trial)
        found.reason = "this node converts alone, and not together with those before it"
        return found

    def _found(self, kind: str, nodes: list[int], trial: Trial | None) -> Finding:
        failure = trial.result if trial is not None and isinstance(trial.result, Failure) else self.failure
        return Finding(
            kind,
            self.subject,
            nodes=tuple(nodes),
            value=self.subject.outline.nodes[nodes[-1]].outputs[0],
            failure=failure,
            trial=trial,
        )

    def _alone(self, nodes: list[int]) -> Trial | None:
        """The nodes alone; None where onnxruntime has no values to feed them."""
        outputs = [o for o in self.suspects.made_for_others(nodes) if o not in self.suspects.constants]
        try:
            return self.lab.trial(
                self.subject.model,
                [*self.suspects.constant_nodes(nodes), *nodes],
                self.suspects.boundary(nodes),
                outputs,
                self.subject.case,
                shapes=self.suspects.shapes,
            )
        except StepFailed:
            return None

    def _prefix_fails(self, count: int) -> bool:
        """Whether the first *count* nodes fail to convert."""
        nodes = self.order[:count]
        outputs = [o for o in self.suspects.made_for_others(nodes) if o not in self.suspects.constants]
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
