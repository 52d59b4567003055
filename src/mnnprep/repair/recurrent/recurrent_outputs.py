"""LSTM, GRU and RNN that don't list their outputs from the first on.

Measured with MNN 3.6.1: an output list ``["", Y_h]`` gives Y in the place of Y_h; an LSTM with fewer than its
three outputs is mostly a SIGSEGV of the converter.  So all are listed, used or not.
"""

from __future__ import annotations

from collections.abc import Iterator

from mnnprep.repair.rule import Match, Rewrite, Rule
from mnnprep.repair.support.editor import Editor
from mnnprep.repair.support.reading import ModelView

OPS = ("LSTM", "GRU", "RNN")


def _find(view: ModelView) -> Iterator[Match[None]]:
    for node, _ in view.nodes(*OPS):
        wanted = 3 if node.op_type == "LSTM" else 1
        named = [bool(output.name) for output in node.outputs]
        if not all(named) or len(named) < wanted:
            yield Match(at=node, detail="an output is left out")


def _apply(editor: Editor, match: Match[None]) -> bool:
    node = match.node
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
    find=_find,
    rewrite=Rewrite(apply=_apply, exact=True),
    hazard="MNN pairs the outputs of a recurrent net wrongly if one is left out, or its converter crashes",
    remedy="list every output of the node, used or not",
)
