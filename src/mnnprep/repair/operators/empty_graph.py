"""A graph without a node.

Measured with MNN 3.6.1: the converter fails. An output that is an input is right if there is a node beside
it.
"""

from __future__ import annotations

from mnnprep.repair.rule import Match, Rule
from mnnprep.repair.support.reading import ModelView


def _find(view: ModelView) -> list[Match[None]]:
    graph = view.model.graph
    return [] if len(graph) else [Match(at=str(graph.name or "the graph"))]


RULE = Rule(
    name="empty-graph",
    severity="refused",
    operators=frozenset(),
    find=_find,
    hazard="MNN's converter refuses a graph that computes nothing",
    remedy="leave such a model to the app",
)
