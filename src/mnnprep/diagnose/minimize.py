"""The smallest part of a graph that still fails, by delta debugging.

Parts are tried until no smaller one fails: first the shortest beginning of the graph, then its last node
alone, then the shortest end of what that node needs, then without each node that is left. The search is
bounded.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from mnnprep.formats.backend import ArtifactFormat
from mnnprep.model.messages import Cut, CutJob
from mnnprep.workers.failure import StepFailed
from mnnprep.workers.pool import Workers

LIMIT = 60  # conversions: enough for two bisections of a graph of 100000 nodes, and some nodes to leave out
Fails = Callable[[list[int]], bool]  # of the numbers of a part's nodes, in order


def smallest_part(
    workers: Workers, kind: ArtifactFormat, model: str, fails: Callable[[str], bool]
) -> list[str]:
    """Return the nodes of the smallest part that *fails* (given the part's file) was found for.

    Empty if there was none.
    """
    step = kind.cut
    if step is None:
        return []

    def cut(nodes: list[int]) -> Cut:
        return workers.run(step, CutJob(model=model, directory=str(workers.directory("part")), nodes=nodes))

    def part_fails(nodes: list[int]) -> bool:
        file = cut(nodes).file
        return file is not None and fails(file.path)

    try:
        listed = cut([])
        part = minimize(len(listed.labels), part_fails, listed.needs, LIMIT)
    except StepFailed:
        return []
    return [listed.labels[node] for node in part]


def minimize(count: int, fails: Fails, needs: Sequence[Sequence[int]], limit: int) -> list[int]:
    """Return the smallest part found that *fails*, of *count* nodes.

    Each node comes after those that it needs. If the failure takes some nodes together, and more nodes never
    hinder it, the result is these nodes.

    Args:
        count: how many nodes there are.
        fails: whether a part does as the whole does.
        needs: the numbers of the nodes that each node takes something from.
        limit: how many parts are tried at most.

    Returns:
        The numbers of the nodes, in order; empty where the whole does not fail.
    """
    known: dict[tuple[int, ...], bool] = {}

    def part_fails(nodes: list[int]) -> bool:
        """Whether *nodes* fail; beyond the limit nothing does."""
        key = tuple(nodes)
        if key not in known and len(known) < limit:
            known[key] = fails(nodes)
        return known.get(key, False)

    whole = list(range(count))
    if not whole or not part_fails(whole):
        return []
    beginning = whole[: _least(count, lambda size: part_fails(whole[:size]))]
    last = beginning[-1]
    if last == 0 or part_fails([last]):
        return [last]
    behind = sorted(_behind(needs, last))
    part = behind if len(behind) <= last and part_fails(behind) else beginning
    part = part[-_least(len(part), lambda size: part_fails(part[-size:])) :]
    for node in part[:-1]:
        smaller = [n for n in part if n != node]
        if part_fails(smaller):
            part = smaller
    return part


def _least(count: int, fails: Callable[[int], bool]) -> int:
    """The least size that fails, by halving; *count* does."""
    low, high = 0, count
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if fails(middle) else (middle, high)
    return high


def _behind(needs: Sequence[Sequence[int]], node: int) -> set[int]:
    """*node* and all that it needs."""
    found, waiting = set[int](), [node]
    while waiting:
        number = waiting.pop()
        if number not in found:
            found.add(number)
            waiting += needs[number]
    return found
