"""LSTM, GRU and RNN that don't list their outputs from the first on.

Measured with MNN 3.6.1: an output list ``["", Y_h]`` gives Y in the place of Y_h; an LSTM with fewer than its three outputs is
mostly a SIGSEGV of the converter.
"""

from __future__ import annotations

from collections.abc import Iterator

from mnnprep.rules.reading import Reading
from mnnprep.rules.rule import Place, Rule

OPS = ("LSTM", "GRU", "RNN")


def find(reading: Reading) -> Iterator[Place]:
    for node, _ in reading.nodes(*OPS):
        wanted = 3 if node.op_type == "LSTM" else 1
        named = [bool(output.name) for output in node.outputs]
        if not all(named) or len(named) < wanted:
            yield Place(node=node, detail="an output is left out")


RULE = Rule(
    name="recurrent-outputs", severity="wrong", operators=frozenset(OPS), find=find,
    hazard="MNN pairs the outputs of a recurrent net wrongly where one is left out, or its converter crashes",
    remedy="list every output of the node, used or not",
)  # fmt: skip
