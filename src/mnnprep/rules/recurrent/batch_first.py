"""LSTM, GRU and RNN with layout=1 (batch first).

Measured with MNN 3.6.1: the attribute is not read.
"""

from __future__ import annotations

from mnnprep.rules.reading import Reading
from mnnprep.rules.rule import Place, Rule

OPS = ("LSTM", "GRU", "RNN")


def find(reading: Reading) -> list[Place]:
    return [Place(node=node) for node, _ in reading.nodes(*OPS) if node.attributes.get_int("layout", 0)]


RULE = Rule(
    name="recurrent-layout", severity="wrong", operators=frozenset(OPS), find=find,
    hazard="MNN does not read layout=1 of a recurrent net",
    remedy="transpose the input and the outputs, with layout=0",
)  # fmt: skip
