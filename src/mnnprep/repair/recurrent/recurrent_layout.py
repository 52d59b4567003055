"""LSTM, GRU and RNN with layout=1 (batch first).

Measured with MNN 3.6.1: the attribute is not read.  So what is fed and given is transposed around layout=0.
"""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING

from mnnprep.repair.rule import Match, Rewrite, Rule
from mnnprep.repair.support.editor import Editor
from mnnprep.repair.support.reading import ModelView

if TYPE_CHECKING:
    import onnx_ir as ir

    from mnnprep.repair.support.reading import Operand

OPS = ("LSTM", "GRU", "RNN")


def _find(view: ModelView) -> list[Match[None]]:
    return [Match(at=node) for node, _ in view.nodes(*OPS) if node.attributes.get_int("layout", 0)]


def _transposed(editor: Editor, perm: list[int], before: ir.Node, value: Operand) -> ir.Value:
    return editor.add(before, "Transpose", value, perm=perm)


def _apply(editor: Editor, match: Match[None]) -> bool:
    node = match.node
    del node.attributes["layout"]
    for number in (0, 5, 6):
        if number < len(node.inputs) and node.inputs[number] is not None:
            node.replace_input_with(
                number, editor.add(node, "Transpose", node.inputs[number], perm=[1, 0, 2])
            )
    for number, value in enumerate(
        node.outputs
    ):  # Y is [steps, directions, batch, hidden] without, [batch, steps, directions, hidden] with
        perm = [1, 0, 2] if number else [2, 0, 1, 3]
        editor.after(node, value, functools.partial(_transposed, editor, perm))
    return True


RULE = Rule(
    name="recurrent-layout",
    severity="wrong",
    operators=frozenset(OPS),
    find=_find,
    rewrite=Rewrite(apply=_apply, exact=True),
    hazard="MNN does not read layout=1 of a recurrent net",
    remedy="transpose the input and the outputs, with layout=0",
)
