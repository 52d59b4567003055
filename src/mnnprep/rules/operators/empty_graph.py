"""A graph without a node.

Measured with MNN 3.6.1: the converter fails. An output that is an input is right where there is a node beside
it.
"""

from __future__ import annotations

from mnnprep.rules.reading import Reading
from mnnprep.rules.rule import Place, Rule


def find(reading: Reading) -> list[Place]:
    graph = reading.model.graph
    return [] if len(graph) else [Place(name=str(graph.name or "the graph"))]


RULE = Rule(
    name="empty-graph",
    severity="refused",
    operators=frozenset(),
    find=find,
    hazard="MNN's converter refuses a graph that computes nothing",
    remedy="leave such a model to the app",
)
