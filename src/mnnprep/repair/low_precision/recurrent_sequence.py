"""LSTM and GRU whose outputs of all steps are used.

Measured with MNN 3.6.1, precision ``low``, on ARM64 CPUs with half-precision arithmetic: the outputs of all
steps repeat those of the first or the second step (-2 to 4 dB), whatever the sizes, the bias, the states or
the directions; the last states are right (56 dB), and so is a sequence of one step.  MNN makes the operator a
loop that collects its outputs (see ``loop-collected``); RNN, which is an operator of its own there, is right.
Written out step by step, or as a Loop that carries its outputs if the sequence is long or of open length;
onnxruntime's last bits differ.
"""

from __future__ import annotations

from collections.abc import Iterator

from mnnprep.repair.rule import Match, Rewrite, Rule
from mnnprep.repair.support import recurrent_looped, recurrent_written_out
from mnnprep.repair.support.building import asked
from mnnprep.repair.support.editor import Editor
from mnnprep.repair.support.reading import ModelView
from mnnprep.repair.support.recurrent_written_out import Recurrent

OPS = ("LSTM", "GRU")


def _find(view: ModelView) -> Iterator[Match[Recurrent]]:
    for node, opset in view.nodes(*OPS):
        dims = view.dims(node.inputs[0])
        one_step = dims is not None and dims[1 if node.attributes.get_int("layout", 0) else 0] == 1
        if asked(node, 0) and not one_step:
            form = recurrent_written_out.read(node, opset, view, any_length=True)
            yield Match(at=node, opset=opset, found=form, repairable=form is not None)


def _apply(editor: Editor, match: Match[Recurrent]) -> bool:
    written = recurrent_written_out if match.plan.steps else recurrent_looped
    written.write_out(editor, match.node, match.plan)
    return True


RULE = Rule(
    name="recurrent-sequence",
    severity="low",
    target="low",
    operators=frozenset(OPS),
    find=_find,
    rewrite=Rewrite(apply=_apply, exact=False),
    hazard="MNN repeats the first steps of an LSTM or GRU throughout its outputs at precision low",
    remedy="prepare it with --target arm64:low, or run it at precision normal or high",
)
