"""The search in a converted model.

It asks which value is wrong first, and if its nodes make that error when they run alone.

The values inside the converted model are read from it as it is, so that what MNN fused stays fused and no
conversion is needed to look; a conversion is made for each piece that is run alone.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from mnnprep.comparison.deviation import Deviation
from mnnprep.comparison.tolerance import LARGEST
from mnnprep.diagnose.bisecting.experiment import Failure, OutOfConversions, Trial, TrialRunner
from mnnprep.diagnose.bisecting.finding import FaultLocation, Growth, Subject
from mnnprep.diagnose.bisecting.suspects import Group, Suspects

# Of what a plain run takes: MNN's values and their copies; a run with them takes less than twice as much.
SHARE_FOR_VALUES = 0.4
MADE_HERE = 0.3  # of the error in the whole model: so much made by a piece alone is its own
HUGE = 1000.0  # excess: beyond, how much more says nothing
SHARE = 0.1  # of the outputs' error: a value that is off by less is at first not taken for where it begins
THRESHOLDS = (1.0, 0.1)  # excess from which a value counts as wrong then: an error may be born small and grow
NOTED = 0.1  # of the excess of a wrong value: so much before its nodes came from upstream
CANDIDATES = 4  # values that are found right alone before the search widens
SHOWN_JUMPS = 5
UNKNOWN_SIZE = 1 << 20  # bytes, for a value whose shape ONNX does not infer


class Search:
    """Finds where *subject* goes wrong; ``budget`` is how many bytes of values may be held at once."""

    def __init__(self, lab: TrialRunner, subject: Subject, budget: int) -> None:
        self.lab = lab
        self.subject = subject
        self.budget = budget
        self.excess: dict[str, float] = {}
        self.problems: dict[str, str] = {}
        self.one_by_one = subject.failing is not None  # everything at once would fail as the whole does

    def find(self) -> FaultLocation:
        """The finding; ``unresolved`` (with the best candidate) where the conversions run out."""
        suspects = Suspects(self.subject.outline, self.subject.piece.tensors)
        trials: list[tuple[Group, Trial]] = []
        try:
            for threshold in self._thresholds():
                found = self._candidates(suspects, threshold, trials)
                if found is not None and not self._one_of_many(found, trials):
                    return found
                if self.subject.failing is not None or (
                    threshold <= 1 and not any(self._upstream(g) > NOTED for g, _ in trials)
                ):
                    break
            return self._widened(suspects, trials)
        except OutOfConversions:
            return self._unresolved(trials, f"the bound of {self.lab.limit} conversions was reached")

    def _thresholds(self) -> list[float]:
        """Return the thresholds to try, from the outputs' own error down.

        A rounding of MNN that is coarser than the tolerance does not make a much larger error.
        """
        worst = max((off.excess for off in self.subject.wrong.values()), default=0.0)
        share = SHARE * min(worst, HUGE)
        return [*([share] if share > THRESHOLDS[0] and self.subject.failing is None else []), *THRESHOLDS]

    def _one_of_many(self, found: FaultLocation, trials: list[tuple[Group, Trial]]) -> bool:
        """Whether a small error that was found is no larger than what later nodes add by themselves.

        Then it is not the one that grew.
        """
        small = found.alone is not None and found.alone <= 1
        return small and any(
            isinstance(t.result, dict) and t.excess(g.output) > MADE_HERE * (found.alone or 0.0)
            for g, t in trials
        )

    def _candidates(
        self, suspects: Suspects, threshold: float, trials: list[tuple[Group, Trial]]
    ) -> FaultLocation | None:
        """Try the first wrong values, one after the other, until one is wrong alone."""
        asked = {g.output for g, _ in trials}
        for _ in range(CANDIDATES):
            group = self._first_wrong(suspects, threshold)
            if group is None:
                return None
            if group.output not in asked or self._larger(group, trials):
                trial = self._alone(suspects, group.nodes, [group.output])
                if self._confirmed(group, trial):
                    return self._refined(suspects, group, trial)
                trials.append((group, trial))
            if group.output in self.subject.outline.outputs:
                return None
            suspects = suspects.without([group.output])
        return None

    def _larger(self, group: Group, trials: list[tuple[Group, Trial]]) -> bool:
        return all(set(group.nodes) > set(g.nodes) for g, _ in trials if g.output == group.output)

    def explained_by(self, value: str) -> bool:
        """Whether *value* is wrong here, too, while what its nodes take is right."""
        suspects = Suspects(self.subject.outline, self.subject.piece.tensors)
        group = suspects.groups.get(value)
        if group is None:
            return False
        before = [n for n in group.inputs if n in suspects.visible]
        if self.subject.failing is not None:
            return isinstance(self._look([value]), Failure) and not (
                before and isinstance(self._look(before), Failure)
            )
        seen = self._look([*before, value])
        return isinstance(seen, dict) and seen[value].excess > 1 and all(seen[n].excess <= 1 for n in before)

    # which value is wrong first

    def _first_wrong(self, suspects: Suspects, threshold: float) -> Group | None:
        """Return the group of the first value that is wrong while what it takes is right.

        None if every value is right.
        """
        if not self.one_by_one:
            size = sum(self.subject.outline.sizes.get(v, UNKNOWN_SIZE) for v in suspects.visible)
            if size <= self.budget:
                found = self._at_once(suspects, threshold)
                if found is not None:
                    return found
            self.one_by_one = True  # too large, or the fault hides while everything is looked at
        return self._by_halving(suspects, threshold)

    def _at_once(self, suspects: Suspects, threshold: float) -> Group | None:
        values = suspects.visible
        if any(v not in self.excess for v in values):
            self.lab.tell(f"running both with {len(values)} values inside as outputs")
            seen = self._look(values)
            if isinstance(seen, Failure):
                return None
            suspects = suspects.without([v for v in values if v not in seen])
        sources = suspects.sources([v for v, e in self.excess.items() if e > threshold])
        return suspects.groups[sources[0]] if sources else None

    def _by_halving(self, suspects: Suspects, threshold: float) -> Group | None:
        """Return the first value after which something live is wrong.

        It looks at what is live at one place at a time.
        """
        order = suspects.visible
        right, wrong = -1, len(order) - 1
        if wrong < 0:
            return None
        self.lab.tell(f"halving over {len(order)} values")
        while wrong - right > 1:
            middle = (right + wrong) // 2
            if self._bad(suspects.live(middle), threshold):
                wrong = middle
            else:
                right = middle
        ends = [v for v in suspects.live(wrong) if v == order[wrong] or v in self.subject.outline.outputs]
        bad = [v for v in ends if self.excess.get(v, LARGEST) > threshold]
        return suspects.groups[bad[-1] if bad else order[wrong]]

    def _bad(self, values: list[str], threshold: float) -> bool:
        """Whether a run that gives *values* fails as the whole does, or one of them is wrong."""
        seen = self._look(values)
        if isinstance(seen, Failure):
            return self.subject.failing is not None
        return any(off.excess > threshold for off in seen.values())

    def _look(self, values: list[str]) -> dict[str, Deviation] | Failure:
        actual = self.lab.run(self.subject.piece, self.subject.case, values)
        if isinstance(actual, Failure):
            return actual
        reference = self.lab.reference(self.subject.model, values, self.subject.case)
        seen = self.lab.compare(
            reference, actual, values, self.subject.outline.outputs, self.subject.case.index
        )
        self.excess |= {v: off.excess for v, off in seen.items()}
        self.problems |= {v: off.problem for v, off in seen.items()}
        return seen

    # alone

    def _alone(
        self, suspects: Suspects, nodes: Iterable[int], outputs: list[str], *, fixed: bool = False
    ) -> Trial:
        """Run *nodes* alone in MNN, on the reference's values."""
        chosen = sorted(nodes)
        self.lab.tell(f"running {self._named(chosen)} alone on the reference's values")
        return self.lab.trial(
            self.subject.model,
            [*suspects.constant_nodes(chosen), *chosen],
            suspects.boundary(chosen),
            outputs,
            self.subject.case,
            shapes=suspects.shapes,
            strict=self.subject.outline.outputs,
            fixed=fixed,
        )

    def _named(self, nodes: list[int]) -> str:
        labels = [self.subject.outline.nodes[i].label for i in nodes]
        return ", ".join(labels[:3]) + (f" and {len(labels) - 3} more" if len(labels) > 3 else "")

    def _confirmed(self, group: Group, trial: Trial) -> bool:
        """Whether the piece alone has the whole error of *group*.

        That is the error that its value has in the whole model, and not a part of it.
        """
        if self.subject.failing is not None:
            return isinstance(trial.result, Failure)
        if isinstance(trial.result, Failure):
            return False  # another trouble than the one that is sought
        alone = trial.excess(group.output)
        return alone > MADE_HERE * min(self.excess.get(group.output, LARGEST), HUGE) and (
            alone > 1 or alone > self._upstream(group)
        )

    def _upstream(self, group: Group) -> float:
        """The largest error of what a group takes, against that of its output in the whole model."""
        return max((self.excess.get(n, 0.0) for n in group.inputs), default=0.0)

    def _finding(
        self, kind: str, group: Group, trial: Trial, nodes: Iterable[int], reason: str = ""
    ) -> FaultLocation:
        failure = trial.result if isinstance(trial.result, Failure) else None
        value = trial.outputs[-1]
        return FaultLocation(
            kind,
            self.subject,
            nodes=tuple(nodes),
            value=group.output,
            reason=reason,
            excess=self.excess.get(group.output),
            upstream=self._upstream(group),
            alone=None if failure else trial.excess(value),
            failure=failure or self.subject.failing,
            trial=trial,
            problem=self.problems.get(group.output, ""),
        )

    def _refined(self, suspects: Suspects, group: Group, trial: Trial) -> FaultLocation:
        """The one node of a group that is wrong alone, or the group as MNN's fusion."""
        if len(group.nodes) == 1:
            return self._finding("node", group, trial, group.nodes)
        inside = [
            o
            for i in group.nodes
            for o in self.subject.outline.nodes[i].outputs
            if o not in suspects.constants
        ]
        among = Suspects(self.subject.outline, [*inside, *group.inputs])
        here: dict[str, float] = {}
        suspected = list(reversed(group.nodes))
        if self.subject.failing is None:
            opened = self._alone(suspects, group.nodes, [v for v in inside if self._taken(v, group)])
            if isinstance(opened.result, dict):
                least = SHARE * min(self.excess.get(group.output, LARGEST), HUGE)
                here = {v: off.excess for v, off in opened.result.items() if off.excess > least}
                suspected = [among.producer[v] for v in among.sources(here, here)]
        for node in suspected[:CANDIDATES]:
            outputs = [o for o in self.subject.outline.nodes[node].outputs if self._taken(o, group)]
            single = self._alone(suspects, [node], outputs)
            if self._guilty(single, here):
                return self._finding("node", group, single, [node])
        return self._finding(
            "fused",
            group,
            trial,
            group.nodes,
            "these nodes are right one by one, and wrong as MNN computes them together",
        )

    def _guilty(self, trial: Trial, here: dict[str, float]) -> bool:
        """Whether a node alone shows what its values showed among its group."""
        if self.subject.failing is not None or isinstance(trial.result, Failure):
            return self.subject.failing is not None and isinstance(trial.result, Failure)
        return any(
            off.excess > MADE_HERE * min(here.get(v, LARGEST), HUGE) for v, off in trial.result.items()
        )

    def _taken(self, value: str, group: Group) -> bool:
        """Whether anything takes *value*: an output that nobody wants is not computed."""
        return value == group.output or any(value in node.inputs for node in self.subject.outline.nodes)

    # when no node is wrong alone

    def _widened(self, suspects: Suspects, trials: list[tuple[Group, Trial]]) -> FaultLocation:
        """A new conversion of the whole, then the first candidate among more and more of its neighbours."""
        fresh = self._fresh()
        if fresh is not None:
            return fresh
        if not trials:
            return self._unresolved(trials, "every value inside is right, and the outputs are wrong")
        group = trials[0][0]
        hops, nodes, limit = 1, list(group.nodes), len(self.subject.outline.nodes)
        grows = self.subject.failing is None and self._upstream(group) > MADE_HERE * self.excess.get(
            group.output, LARGEST
        )
        while len(nodes) < limit and not grows:
            wider = suspects.grown(group.nodes, hops)
            hops *= 2
            if wider == nodes:
                break
            nodes = wider
            ends = [v for v in suspects.made_for_others(nodes) if v not in suspects.constants]
            trial = self._alone(
                suspects, nodes, list(dict.fromkeys([*(v for v in ends if v != group.output), group.output]))
            )
            if self._confirmed(group, trial):
                reason = "these nodes are right alone, and wrong together with those around them"
                return self._finding("context", group, trial, group.nodes, reason)
        jumps = suspects.largest_jumps({v: e for v, e in self.excess.items() if e < LARGEST}, SHOWN_JUMPS)
        growth = [
            Growth(self.subject.outline.nodes[suspects.producer[v]].label, before, after)
            for v, before, after in jumps
        ]
        if self.subject.failing is None and all(isinstance(t.result, dict) for _, t in trials):
            found = self._finding(
                "gradual",
                group,
                trials[0][1],
                group.nodes,
                "no node makes this error alone: it grows from node to node",
            )
            found.growth = growth
            return found
        return self._unresolved(trials, "no piece of the model shows the failure alone")

    def _fresh(self) -> FaultLocation | None:
        """`stale`, if the bundle's own file fails and a conversion made now does not."""
        if not self.subject.own:
            return None
        self.lab.tell("converting the whole artifact again")
        outline = self.subject.outline
        piece = self.lab.convert(self.subject.model, outline.inputs, outline.outputs, "0" * 64)
        if isinstance(piece, Failure):
            return None
        if wrong_outputs(self.lab, replace(self.subject, piece=piece)):
            return None
        return FaultLocation(
            "stale",
            self.subject,
            reason=(
                "the bundle's converted model is wrong, and a conversion made now is right: it came from"
                " another artifact or another converter; prepare the model again"
            ),
        )

    def _unresolved(self, trials: list[tuple[Group, Trial]], reason: str) -> FaultLocation:
        if not trials:
            return FaultLocation("unresolved", self.subject, reason=reason, failure=self.subject.failing)
        group, trial = trials[0]
        return self._finding("unresolved", group, trial, group.nodes, reason)


def wrong_outputs(lab: TrialRunner, subject: Subject) -> dict[str, Deviation] | Failure:
    """The outputs of *subject* that are wrong at its case, or how its run fails; empty if all is right.

    Raises:
        StepFailed: the reference does not run.
    """
    outputs = subject.outline.outputs
    actual = lab.run(subject.piece, subject.case, outputs)
    if isinstance(actual, Failure):
        return actual
    reference = lab.reference(subject.model, outputs, subject.case)
    return {
        name: off
        for name, off in lab.compare(reference, actual, outputs, outputs, subject.case.index).items()
        if off.excess > 1
    }


def failing_as(subject: Subject, wrong: dict[str, Deviation] | Failure) -> Subject:
    """*subject* with how it fails."""
    return replace(subject, failing=wrong) if isinstance(wrong, Failure) else replace(subject, wrong=wrong)
