"""GRU with linear_before_reset=0, ONNX's default.

Measured with MNN 3.6.1: MNN always computes as with 1 (which is torch's form); with both directions it gives
nothing. Written out step by step, if the sequence has a fixed length; onnxruntime's last bits differ.
"""

from __future__ import annotations

from mnnprep.repair.rule import Match, Rewrite, Rule
from mnnprep.repair.support import recurrent_written_out
from mnnprep.repair.support.editor import Editor
from mnnprep.repair.support.reading import ModelView
from mnnprep.repair.support.recurrent_written_out import Recurrent


def _find(view: ModelView) -> list[Match[Recurrent]]:
    found = [pair for pair in view.nodes("GRU") if not pair[0].attributes.get_int("linear_before_reset", 0)]
    forms = [(node, recurrent_written_out.read(node, opset, view)) for node, opset in found]
    return [Match(at=node, found=form, repairable=form is not None) for node, form in forms]


def _apply(editor: Editor, match: Match[Recurrent]) -> bool:
    recurrent_written_out.write_out(editor, match.node, match.plan)
    return True


RULE = Rule(
    name="gru-linear-before-reset",
    severity="wrong",
    operators=frozenset({"GRU"}),
    find=_find,
    rewrite=Rewrite(apply=_apply, exact=False),
    hazard="MNN computes every GRU as if linear_before_reset were 1",
    remedy="export a GRU of torch's form (linear_before_reset=1), or write it out with MatMul",
)
