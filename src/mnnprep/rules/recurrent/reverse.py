"""LSTM, GRU and RNN with direction=reverse.

Measured with MNN 3.6.1: computed as forward.
"""

from __future__ import annotations

from mnnprep.rules.reading import Reading
from mnnprep.rules.rule import Place, Rule

OPS = ("LSTM", "GRU", "RNN")


def find(reading: Reading) -> list[Place]:
    return [Place(node=node) for node, _ in reading.nodes(*OPS) if node.attributes.get_string("direction", "forward") == "reverse"]


RULE = Rule(
    name="recurrent-reverse", severity="wrong", operators=frozenset(OPS), find=find,
    hazard="MNN computes a recurrent net with direction=reverse as forward",
    remedy="reverse the sequence before and after, with direction=forward",
)  # fmt: skip
