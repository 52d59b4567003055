"""LSTM, GRU and RNN with direction=reverse.

Measured with MNN 3.6.1: computed as forward.  So the sequence is reversed before, and its outputs after.
"""

from __future__ import annotations

from typing import Any

from mnnprep.deps import require
from mnnprep.rules.editor import Editor
from mnnprep.rules.forms import RANGE_IS_KNOWN, backwards
from mnnprep.rules.reading import Reading
from mnnprep.rules.rule import Place, Rewrite, Rule

OPS = ("LSTM", "GRU", "RNN")


def find(reading: Reading) -> list[Place]:
    return [
        Place(
            node=node,
            match=_length(node, reading),
            repairable=opset >= RANGE_IS_KNOWN and (len(node.inputs) < 5 or node.inputs[4] is None),
        )
        for node, opset in reading.nodes(*OPS)
        if node.attributes.get_string("direction", "forward") == "reverse"
    ]


def _length(node: Any, reading: Reading) -> int | None:
    dims = reading.dims(node.inputs[0])
    size = dims[1 if node.attributes.get_int("layout", 0) else 0] if dims is not None else None
    return size if isinstance(size, int) else None


def apply(editor: Editor, place: Place) -> bool:
    node = place.node
    axis = 1 if node.attributes.get_int("layout", 0) else 0
    node.replace_input_with(0, backwards(editor, node, node.inputs[0], axis, place.match))
    node.attributes["direction"] = require("onnx_ir").AttrString("direction", "forward")
    editor.after(
        node, node.outputs[0], lambda before, value: backwards(editor, before, value, axis, place.match)
    )
    return True


RULE = Rule(
    name="recurrent-reverse",
    severity="wrong",
    operators=frozenset(OPS),
    find=find,
    rewrite=Rewrite(apply=apply, exact=True),
    hazard="MNN computes a recurrent net with direction=reverse as forward",
    remedy="reverse the sequence before and after, with direction=forward",
)
