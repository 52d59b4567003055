"""LSTM of one direction with initial states, over a sequence of open length.

Measured with MNN 3.6.1: where the batch is fixed, or the sequence is an input of the model itself, the result
is transposed (a batch of 1) or there is none.  Without initial states, behind any other node, or with both
directions, it is right.

States that are always zero are left out, which is what ONNX takes for them; an Identity stands between an
input of open batch and the LSTM; anything else is written as a Loop over the steps, whose last bits differ.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, NamedTuple

from mnnprep.repair.rule import Match, Rewrite, Rule
from mnnprep.repair.support import recurrent_looped, recurrent_written_out
from mnnprep.repair.support.building import given
from mnnprep.repair.support.editor import Editor
from mnnprep.repair.support.reading import ModelView, producer, tensor
from mnnprep.repair.support.recurrent_written_out import Recurrent

if TYPE_CHECKING:
    import onnx_ir as ir

    from mnnprep.repair.support.reading import Operand

STATES = (5, 6)  # the inputs initial_h and initial_c
ORIGINS = 4  # how many nodes back a zero is sought


class Remedy(NamedTuple):
    """Leave out states that are ``zero``, keep off the input, or loop by ``form``."""

    zero: bool
    form: Recurrent | None


def _find(view: ModelView) -> Iterator[Match[Remedy]]:
    for node, opset in view.nodes("LSTM"):
        dims, x = view.dims(node.inputs[0]), node.inputs[0]
        states = [value for place in STATES if (value := given(node, place)) is not None]
        if dims is None or len(dims) != 3 or x is None or not states:
            continue
        batched = node.attributes.get_int("layout", 0)
        steps, batch = (dims[1], dims[0]) if batched else dims[:2]
        both = node.attributes.get_string("direction", "forward") == "bidirectional"
        fixed = isinstance(batch, int)
        if both or isinstance(steps, int) or not (fixed or x.is_graph_input()):
            continue
        zero = all(_is_zero(value) for value in states)
        form = recurrent_written_out.read(node, opset, view, any_length=True) if fixed and not zero else None
        able = zero or not fixed or form is not None
        yield Match(at=node, opset=opset, found=Remedy(zero, form), repairable=able)


def _is_zero(value: Operand) -> bool:
    """Whether *value* is zero whatever the input."""
    for _ in range(ORIGINS):
        known = tensor(value)
        if known is not None:
            return known.dtype.name == "FLOAT" and not known.numpy().any()
        filled = producer(value, "ConstantOfShape")
        if filled is not None:
            attribute = filled.attributes.get("value")
            return attribute is None or not attribute.as_tensor().numpy().any()
        node = producer(value, "Expand", "Reshape", "Unsqueeze", "Slice", "Tile", "Transpose", "Gather")
        value = node.inputs[0] if node is not None else None
    return False


def _apply(editor: Editor, match: Match[Remedy]) -> bool:
    node, (zero, form) = match.node, match.plan
    if zero:
        _leave_out(editor, node)
    elif form is None:
        node.replace_input_with(0, editor.add(node, "Identity", node.inputs[0]))
    else:
        recurrent_looped.write_out(editor, node, form)
    return True


def _leave_out(editor: Editor, node: ir.Node) -> None:
    states = [given(node, place) for place in STATES]
    for place in STATES:
        if place < len(node.inputs):
            node.replace_input_with(place, None)
    for value in states:
        editor.discard(value)


RULE = Rule(
    name="lstm-initial-states",
    severity="wrong",
    operators=frozenset({"LSTM"}),
    find=_find,
    rewrite=Rewrite(apply=_apply, exact=False),
    hazard="MNN transposes the result of an LSTM with initial states over an open length, or gives none",
    remedy="leave out initial states that are zero, or fix the length of the sequence",
)
