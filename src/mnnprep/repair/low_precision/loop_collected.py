"""Loop that collects floats over its steps (scan outputs).

Measured with MNN 3.6.1, precision ``low``, on ARM64 CPUs with half-precision arithmetic: what is collected
repeats the numbers of the first or the second step; integers, and the values carried from step to step, are
right.  So it is carried: a table of all steps, in which each step fills its row.  This needs the most steps
that the Loop may take, and the sizes of a row; where a condition may end the Loop before, the rest of the
table is cut off.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from mnnprep.deps import require
from mnnprep.repair.rule import Match, Rewrite, Rule
from mnnprep.repair.support.building import FLOATS, Builder, asked, given, static
from mnnprep.repair.support.editor import Editor
from mnnprep.repair.support.loops import filled
from mnnprep.repair.support.opsets import SINCE
from mnnprep.repair.support.reading import ModelView, producer, scalar

if TYPE_CHECKING:
    import onnx_ir as ir

MOST_STEPS = 65_536  # a table of more rows costs more than it repairs


class Collected(NamedTuple):
    """How many values the Loop carries, what it collects, and whether it may end before its count of steps.

    Each collected value by the ONNX name of its dtype and the sizes of a row.
    """

    carried: int
    rows: tuple[tuple[str, tuple[int, ...]], ...]
    ends_early: bool


def _find(view: ModelView) -> Iterator[Match[Collected]]:
    for node, opset in view.nodes("Loop"):
        body = node.attributes["body"].value
        carried = len(node.inputs) - 2
        collected = list(body.outputs)[1 + carried :]
        used = [asked(node, carried + place) for place in range(len(collected))]
        if any(u and view.dtype(v) in (*FLOATS, "") for v, u in zip(collected, used, strict=True)):
            kinds = [(view.dtype(value), static(view.dims(value))) for value in collected]
            known = tuple((dtype, sizes) for dtype, sizes in kinds if dtype and sizes is not None)
            yield Match(
                at=node,
                opset=opset,
                found=Collected(carried, known, _ends_early(node)),
                repairable=len(known) == len(kinds)
                and opset >= SINCE["ScatterND"]
                and given(node, 0) is not None
                and (scalar(node.inputs[0]) or 0) <= MOST_STEPS,
            )


def _ends_early(node: ir.Node) -> bool:
    """Whether the condition may end the Loop before its count of steps."""
    body = node.attributes["body"].value
    still = body.outputs[0]
    while (copy := producer(still, "Identity")) is not None:
        still = copy.inputs[0]
    kept = still is body.inputs[1] or scalar(still) not in (None, 0.0)
    start = given(node, 1)
    return not kept or (start is not None and scalar(start) in (None, 0.0))


def _apply(editor: Editor, match: Match[Collected]) -> bool:
    ir, node, plan = require("onnx_ir"), match.node, match.plan
    build, body = Builder(editor, node, match.opset), node.attributes["body"].value
    last = ir.node("Identity", [body.outputs[0]], outputs=editor.fresh(node, 1), name=editor.name(node))
    body.append(last)
    last.outputs[0].type, last.outputs[0].shape = body.outputs[0].type, body.outputs[0].shape
    body.outputs[0] = last.outputs[0]
    inner, step = Builder(editor, last, match.opset), body.inputs[0]
    starts = list(node.inputs)
    count = build.reshape(node.inputs[0], 1)
    for place, (dtype, sizes) in enumerate(plan.rows, 1 + plan.carried):
        (table,) = editor.fresh(node, 1)
        table.type, table.shape = ir.TensorType(ir.DataType[dtype]), ir.Shape([None, *sizes])
        body.inputs.append(table)
        row = filled(inner, table, step, body.outputs[place])
        row.type, row.shape = table.type, table.shape
        body.outputs[place] = row
        shape = build.op("Concat", count, build.ints(*sizes), axis=0)
        starts.append(build.op("Expand", build.constant(np.zeros([1] * (1 + len(sizes))), dtype), shape))
    if plan.ends_early:
        _count_steps(editor, match, inner)
        starts.append(build.constant(np.array(0, np.int64)))
    node.resize_inputs(len(starts))
    for place, start in enumerate(starts):
        node.replace_input_with(place, start)
    return True


def _count_steps(editor: Editor, match: Match[Collected], inner: Builder) -> None:
    """Carry the number of steps taken, and cut the tables off there."""
    types, node = require("onnx_ir"), match.node
    body = node.attributes["body"].value
    taken, done = editor.fresh(node, 1)[0], inner.op("Add", body.inputs[0], inner.constant(np.array(1)))
    for value in (taken, done):
        value.type, value.shape = types.TensorType(types.DataType.INT64), types.Shape([])
    body.inputs.append(taken)
    body.outputs.append(done)
    tables = list(node.outputs)[match.plan.carried :]
    node.resize_outputs(len(node.outputs) + 1)
    steps = node.outputs[-1]
    steps.name, steps.type = editor.name(node), types.TensorType(types.DataType.INT64)

    def cut(before: ir.Node, table: ir.Value) -> ir.Value:
        build = Builder(editor, before, match.opset)
        return build.op("Slice", table, build.ints(0), build.reshape(steps, 1), build.ints(0))

    for table in tables:
        editor.after(node, table, cut)


RULE = Rule(
    name="loop-collected",
    severity="low",
    target="low",
    operators=frozenset({"Loop"}),
    find=_find,
    rewrite=Rewrite(apply=_apply, exact=True),
    hazard="MNN repeats the first steps of a Loop throughout what it collects at precision low",
    remedy="carry the outputs from step to step, or run it at precision normal or high",
)
