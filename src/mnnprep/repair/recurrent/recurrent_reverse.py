"""LSTM, GRU and RNN with direction=reverse.

Measured with MNN 3.6.1: computed as forward.  So the sequence is reversed before, and its outputs after.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from mnnprep.deps import require
from mnnprep.repair.rule import Match, Rewrite, Rule
from mnnprep.repair.support.building import Builder
from mnnprep.repair.support.editor import Editor
from mnnprep.repair.support.opsets import SINCE
from mnnprep.repair.support.reading import ModelView

if TYPE_CHECKING:
    import onnx_ir as ir

OPS = ("LSTM", "GRU", "RNN")


def _find(view: ModelView) -> list[Match[int | None]]:
    return [
        Match(
            at=node,
            opset=opset,
            found=_length(node, view),
            repairable=opset >= SINCE["Range"] and (len(node.inputs) < 5 or node.inputs[4] is None),
        )
        for node, opset in view.nodes(*OPS)
        if node.attributes.get_string("direction", "forward") == "reverse"
    ]


def _length(node: ir.Node, view: ModelView) -> int | None:
    dims = view.dims(node.inputs[0])
    size = dims[1 if node.attributes.get_int("layout", 0) else 0] if dims is not None else None
    return size if isinstance(size, int) else None


def _apply(editor: Editor, match: Match[int | None]) -> bool:
    node = match.node
    axis = 1 if node.attributes.get_int("layout", 0) else 0
    node.replace_input_with(
        0, Builder(editor, node, match.opset).backwards(node.inputs[0], axis, match.found)
    )
    node.attributes["direction"] = require("onnx_ir").AttrString("direction", "forward")
    editor.after(
        node,
        node.outputs[0],
        lambda before, value: Builder(editor, before, match.opset).backwards(value, axis, match.found),
    )
    return True


RULE = Rule(
    name="recurrent-reverse",
    severity="wrong",
    operators=frozenset(OPS),
    find=_find,
    rewrite=Rewrite(apply=_apply, exact=True),
    hazard="MNN computes a recurrent net with direction=reverse as forward",
    remedy="reverse the sequence before and after, with direction=forward",
)
