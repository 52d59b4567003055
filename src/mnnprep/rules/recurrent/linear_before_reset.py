"""GRU with linear_before_reset=0, ONNX's default.

Measured with MNN 3.6.1: MNN always computes as with 1 (which is torch's form); with both directions it gives
nothing. Written out step by step, where the sequence has a fixed length; onnxruntime's last bits differ.
"""

from __future__ import annotations

from mnnprep.rules.editor import Editor
from mnnprep.rules.reading import Reading
from mnnprep.rules.recurrent import written_out
from mnnprep.rules.rule import Place, Rewrite, Rule


def find(reading: Reading) -> list[Place]:
    found = [
        pair for pair in reading.nodes("GRU") if not pair[0].attributes.get_int("linear_before_reset", 0)
    ]
    forms = [(node, written_out.read(node, opset, reading)) for node, opset in found]
    return [Place(node=node, match=form, repairable=form is not None) for node, form in forms]


def apply(editor: Editor, place: Place) -> bool:
    written_out.write_out(editor, place.node, place.match)
    return True


RULE = Rule(
    name="gru-linear-before-reset",
    severity="wrong",
    operators=frozenset({"GRU"}),
    find=find,
    rewrite=Rewrite(apply=apply, exact=False),
    hazard="MNN computes every GRU as with linear_before_reset=1",
    remedy="export a GRU of torch's form (linear_before_reset=1), or write it out with MatMul",
)
