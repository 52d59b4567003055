"""LSTM, GRU and RNN that don't list their outputs from the first on.

Measured with MNN 3.6.1: an output list ``["", Y_h]`` gives Y in the place of Y_h; an LSTM with fewer than its
three outputs is mostly a SIGSEGV of the converter.  So all are listed, used or not.
"""

from __future__ import annotations

from collections.abc import Iterator

from mnnprep.rules.editor import Editor
from mnnprep.rules.reading import Reading
from mnnprep.rules.rule import Place, Rewrite, Rule

OPS = ("LSTM", "GRU", "RNN")


def find(reading: Reading) -> Iterator[Place]:
    for node, _ in reading.nodes(*OPS):
        wanted = 3 if node.op_type == "LSTM" else 1
        named = [bool(output.name) for output in node.outputs]
        if not all(named) or len(named) < wanted:
            yield Place(node=node, detail="an output is left out")


def apply(editor: Editor, place: Place) -> bool:
    node = place.node
    wanted = 3 if node.op_type == "LSTM" else 2
    if len(node.outputs) < wanted:
        node.resize_outputs(wanted)
    for value in node.outputs:
        value.name = value.name or editor.name(node)
    return True


RULE = Rule(
    name="recurrent-outputs",
    severity="wrong",
    operators=frozenset(OPS),
    find=find,
    rewrite=Rewrite(apply=apply, exact=True),
    hazard="MNN pairs the outputs of a recurrent net wrongly where one is left out, or its converter crashes",
    remedy="list every output of the node, used or not",
)
