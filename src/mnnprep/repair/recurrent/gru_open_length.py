"""GRU over a sequence of open length.

Measured with MNN 3.6.1: of more than one step, the outputs of all steps are wrong (6 dB), and with the last
state among the outputs the net gives nothing; an LSTM of open length is right.  Written as a Loop over the
steps; onnxruntime's last bits differ.
"""

from __future__ import annotations

from collections.abc import Iterator

from mnnprep.repair.rule import Match, Rewrite, Rule
from mnnprep.repair.support import recurrent_looped, recurrent_written_out
from mnnprep.repair.support.editor import Editor
from mnnprep.repair.support.reading import ModelView
from mnnprep.repair.support.recurrent_written_out import Recurrent


def _find(view: ModelView) -> Iterator[Match[Recurrent]]:
    for node, opset in view.nodes("GRU"):
        dims = view.dims(node.inputs[0])
        steps = dims[1 if node.attributes.get_int("layout", 0) else 0] if dims is not None else None
        if not isinstance(steps, int):
            form = recurrent_written_out.read(node, opset, view, any_length=True)
            yield Match(at=node, found=form, repairable=form is not None)


def _apply(editor: Editor, match: Match[Recurrent]) -> bool:
    recurrent_looped.write_out(editor, match.node, match.plan)
    return True


RULE = Rule(
    name="gru-open-length",
    severity="wrong",
    operators=frozenset({"GRU"}),
    find=_find,
    rewrite=Rewrite(apply=_apply, exact=False),
    hazard="MNN computes a GRU over a sequence of open length wrong, or gives nothing",
    remedy="export it with a fixed length of the sequence",
)
