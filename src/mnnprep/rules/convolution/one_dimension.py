"""Conv and ConvTranspose over one dimension whose result is an output of the graph.

Measured with MNN 3.6.1: the values are right and the output has a fourth dimension of size 1. Further inside a net it does not show.
"""

from __future__ import annotations

from collections.abc import Iterator

from mnnprep.rules.reading import Reading
from mnnprep.rules.rule import Place, Rule

OPS = ("Conv", "ConvTranspose")


def find(reading: Reading) -> Iterator[Place]:
    for node, _ in reading.nodes(*OPS):
        weight = reading.rank(node.inputs[1])
        if (weight or reading.rank(node.inputs[0])) == 3 and node.outputs[0].is_graph_output():
            yield Place(node=node)


RULE = Rule(
    name="conv1d-output", severity="wrong", operators=frozenset(OPS), find=find,
    hazard="MNN gives the result of a Conv over one dimension a dimension too many where it is an output",
    remedy="put it through Unsqueeze, a Conv over two dimensions and Squeeze",
)  # fmt: skip
