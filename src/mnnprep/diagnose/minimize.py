"""The smallest part of a graph that still fails, by delta debugging.

Parts are tried until no smaller one fails: first the shortest beginning of the graph, then the shortest end
of that, then without each node that is left. The search is bounded by LIMIT conversions.
"""

from __future__ import annotations

from collections.abc import Callable

from mnnprep.formats.backend import ArtifactFormat
from mnnprep.model.messages import Cut, CutJob
from mnnprep.workers.failure import StepFailed
from mnnprep.workers.pool import Workers
from mnnprep.workers.step import Step

LIMIT = 60  # conversions: enough for two bisections of a graph of 100000 nodes, and some nodes to leave out
Fails = Callable[[str], bool]


def smallest_part(workers: Workers, kind: ArtifactFormat, model: str, fails: Fails) -> list[str]:
    """Return the nodes of the smallest part that *fails* (given the part's file) was found for.

    Empty if there was none.
    """
    if kind.cut is None:
        return []
    try:
        return _Search(workers, kind.cut, model, fails).run()
    except StepFailed:
        return []


class _Search:
    def __init__(self, workers: Workers, cut: Step[CutJob, Cut], model: str, fails: Fails) -> None:
        self._workers, self._step, self._model, self._fails = workers, cut, model, fails
        self._left = LIMIT

    def run(self) -> list[str]:
        outline = self._cut([])
        count = len(outline.labels)
        if not count or not self._try(list(range(count))):
            return []
        last = _least(count, lambda size: self._try(list(range(size)))) - 1
        behind = sorted(_behind(outline.needs, last))
        part = behind if len(behind) == last + 1 or self._try(behind) else list(range(last + 1))
        part = part[-_least(len(part), lambda size: self._try(part[-size:])) :]
        for node in part[:-1]:
            smaller = [n for n in part if n != node]
            if self._left and self._try(smaller):
                part = smaller
        return [outline.labels[node] for node in part]

    def _cut(self, nodes: list[int]) -> Cut:
        job = CutJob(model=self._model, directory=str(self._workers.directory("part")), nodes=nodes)
        return self._workers.run(self._step, job)

    def _try(self, nodes: list[int]) -> bool:
        """Whether the part fails as the whole does; beyond the limit nothing does."""
        if not self._left:
            return False
        self._left -= 1
        file = self._cut(nodes).file
        return file is not None and self._fails(file.path)


def _least(count: int, fails: Callable[[int], bool]) -> int:
    """The least size that fails, by halving; *count* does."""
    low, high = 0, count
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if fails(middle) else (middle, high)
    return high


def _behind(needs: list[list[int]], node: int) -> set[int]:
    """*node* and all that it needs."""
    found, waiting = set[int](), [node]
    while waiting:
        number = waiting.pop()
        if number not in found:
            found.add(number)
            waiting += needs[number]
    return found
