"""LSTM, GRU and RNN as a Loop over the steps, for a sequence of open length.

The sequence of outputs is not what the Loop collects: it is carried (see ``loops``).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from mnnprep.repair.support import recurrent_written_out
from mnnprep.repair.support.building import Builder, asked, given
from mnnprep.repair.support.editor import Editor
from mnnprep.repair.support.loops import LoopBody, filled
from mnnprep.repair.support.recurrent_written_out import Recurrent

if TYPE_CHECKING:
    import onnx_ir as ir

STATE, TABLE = 2, 3  # the ranks of a state [batch, hidden] and of all outputs [steps, batch, hidden]


def write_out(editor: Editor, node: ir.Node, form: Recurrent) -> None:
    """Let a Loop for each direction take the node's place."""
    build = Builder(editor, node, form.opset)
    shape = build.op("Shape", node.inputs[0])
    directions = [_direction(build, form, number, shape) for number in range(len(form.directions))]
    replaced = {}
    # The outputs of all steps, the first output, are the last of a direction's results.
    for place, axis in enumerate((1, 0, 0)[: len(node.outputs)]):
        if asked(node, place):
            parts = [build.unsqueeze(results[place - 1], axis) for results in directions]
            replaced[node.outputs[place]] = build.op("Concat", *parts, axis=axis) if parts[1:] else parts[0]
    editor.replace_outputs(node, replaced)


def _direction(build: Builder, form: Recurrent, number: int, shape: ir.Value) -> list[ir.Value]:
    """The last states of one direction, and then its outputs of all steps if they are asked for."""
    node, collects = build.node, asked(build.node, 0)
    x = recurrent_written_out.inputs_of_steps(build, form, number)
    starts = recurrent_written_out.first_states(build, form, number)
    count = build.op("Gather", shape, build.constant(np.array(0, np.int64)), axis=0)
    if collects:
        sizes = build.op("Concat", build.slice(shape, 0, 0, 2), build.ints(form.hidden), axis=0)
        starts.append(build.op("Expand", build.constant(np.zeros((1, 1, 1), np.float32)), sizes))
    last = build.op("Sub", count, build.constant(np.array(1, np.int64)))
    states = 2 if form.kind == "LSTM" else 1
    body = LoopBody(build, starts, [STATE] * states + [TABLE] * collects)
    inner, carried = body.build, body.carried
    at = inner.op("Sub", last, body.step) if form.directions[number] else body.step
    cell = recurrent_written_out.make_cell(inner, node, form, number)
    new = cell.step(inner.op("Gather", x, at, axis=0), carried[:states])
    output = new[0]
    if (lengths := given(node, 4)) is not None:
        output, new = recurrent_written_out.within(
            inner, inner.cast(at, "INT32"), lengths, new, carried[:states]
        )
    table = [filled(inner, carried[states], at, output)] if collects else []
    return body.close(count, [*new, *table])
