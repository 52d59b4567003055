"""LSTM, GRU and RNN with inputs that MNN does not read.

Measured with MNN 3.6.1: peepholes, and weights or biases that are computed, are refused or give nothing; lengths of the sequences are not read.
"""

from __future__ import annotations

from collections.abc import Iterator

from mnnprep.rules.reading import Reading, stored
from mnnprep.rules.rule import Place, Rule

OPS = ("LSTM", "GRU", "RNN")


def find(reading: Reading) -> Iterator[Place]:
    for node, _ in reading.nodes(*OPS):
        given = [*node.inputs, *[None] * 8]
        if given[4] is not None:
            yield Place(node=node, detail="sequence_lens")
        elif given[7] is not None:
            yield Place(node=node, detail="peepholes")
        elif any(value is not None and stored(value) is None for value in given[1:4]):
            yield Place(node=node, detail="computed weights")


RULE = Rule(
    name="recurrent-inputs", severity="refused", operators=frozenset(OPS), find=find,
    hazard="MNN does not read sequence lengths, peepholes or computed weights of a recurrent net",
    remedy="make the weights initializers, and pad the sequences to one length",
)  # fmt: skip
