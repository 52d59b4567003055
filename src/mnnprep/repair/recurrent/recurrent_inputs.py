"""LSTM, GRU and RNN with inputs that MNN does not read.

Measured with MNN 3.6.1: peepholes, and weights or biases that are computed, are refused or give nothing;
lengths of the sequences are not read. Nor does it read clip, input_forget or an activation other than the
usual.  Written out step by step, or as a Loop over the steps if the length of the sequence is open; lengths
that all are the whole one are left out.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from mnnprep.repair.rule import Match, Rewrite, Rule
from mnnprep.repair.support import recurrent_looped, recurrent_written_out
from mnnprep.repair.support.editor import Editor
from mnnprep.repair.support.reading import ModelView, stored, tensor
from mnnprep.repair.support.recurrent_written_out import Recurrent

if TYPE_CHECKING:
    import onnx_ir as ir

OPS = ("LSTM", "GRU", "RNN")
LENGTHS = "sequence_lens"


def _find(view: ModelView) -> Iterator[Match[Recurrent]]:
    for node, opset in view.nodes(*OPS):
        detail = _unread(node)
        if detail:
            form = recurrent_written_out.read(node, opset, view, any_length=True)
            yield Match(
                at=node,
                detail=detail,
                found=form,
                repairable=form is not None or (detail == LENGTHS and _whole(node, view)),
            )


def _apply(editor: Editor, match: Match[Recurrent]) -> bool:
    node = match.node
    if match.detail == LENGTHS and _whole(node, editor.view):
        node.replace_input_with(4, None)
        if not _unread(node):
            return True
    if match.found is None:
        return False
    written = recurrent_written_out if match.found.steps else recurrent_looped
    written.write_out(editor, node, match.found)
    return True


def _unread(node: ir.Node) -> str:
    """Name what MNN does not read of the node; empty for nothing."""
    given = [*node.inputs, *[None] * 8]
    if given[4] is not None:
        return LENGTHS
    if given[7] is not None:
        return "peepholes"
    if any(value is not None and stored(value) is None for value in given[1:4]):
        return "computed weights"
    usual = recurrent_written_out.USUAL[node.op_type]
    names = [name.lower() for name in node.attributes.get_strings("activations", ())]
    if names and names != [name.lower() for name in usual] * (len(names) // len(usual)):
        return "activations"
    return next(
        (
            name
            for name in ("clip", "input_forget")
            if name in node.attributes and node.attributes[name].value
        ),
        "",
    )


def _whole(node: ir.Node, view: ModelView) -> bool:
    """Whether every sequence is as long as the longest may be."""
    lengths, dims = tensor(node.inputs[4]), view.dims(node.inputs[0])
    return lengths is not None and dims is not None and bool((lengths.numpy() == dims[0]).all())


RULE = Rule(
    name="recurrent-inputs",
    severity="refused",
    operators=frozenset(OPS),
    find=_find,
    rewrite=Rewrite(apply=_apply, exact=False),
    hazard="MNN does not read sequence lengths, peepholes or computed weights of a recurrent net",
    remedy="make the weights initializers, and pad the sequences to one length",
)
