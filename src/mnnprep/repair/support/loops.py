"""Loops as MNN computes them right at precision ``low``.

Measured with MNN 3.6.1 on CPUs with half-precision arithmetic: a value that a Loop collects over its steps
(a scan output) holds the first or the second step's numbers throughout, if they are floats; the values that
are carried from step to step are right.  So what is collected is carried here: a table of all steps, in which
each step fills its row.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from mnnprep.deps import require
from mnnprep.repair.support.building import Builder

if TYPE_CHECKING:
    import onnx_ir as ir


class LoopBody:
    """The body of a new Loop, to be filled by ``build``; ``step`` is the number of the step, an int64 scalar.

    ``carried`` are the values at the start of a step, one for each of *starts*, which all are float32 of
    these *ranks*.
    """

    def __init__(self, build: Builder, starts: Sequence[ir.Value], ranks: Sequence[int]) -> None:
        ir = require("onnx_ir")
        self._outer, self._starts = build, list(starts)
        number, goes_on, still, *carried = build.editor.fresh(build.node, 3 + len(starts))
        number.type, number.shape = ir.TensorType(ir.DataType.INT64), ir.Shape([])
        for condition in (goes_on, still):
            condition.type, condition.shape = ir.TensorType(ir.DataType.BOOL), ir.Shape([])
        for value, rank in zip(carried, ranks, strict=True):
            value.type, value.shape = ir.TensorType(ir.DataType.FLOAT), ir.Shape([None] * rank)
        last = ir.node("Identity", [goes_on], outputs=[still], name=still.name)
        self._graph = ir.Graph([number, goes_on, *carried], [still], nodes=[last], name=still.name)
        self.step = number
        self.carried = carried
        self.build = Builder(build.editor, last, build.opset)

    def close(self, count: ir.Value, results: Sequence[ir.Value]) -> list[ir.Value]:
        """Put the Loop of *count* steps in; *results* are what ``carried`` becomes. Return its outputs."""
        ir, build = require("onnx_ir"), self._outer
        for value, result in zip(self.carried, results, strict=True):
            result.type, result.shape = value.type, value.shape
            self._graph.outputs.append(result)
        outputs = build.editor.fresh(build.node, len(self.carried))
        for output in outputs:
            output.type = ir.TensorType(ir.DataType.FLOAT)
        true = build.constant(np.array(True))
        build.editor.add_for(outputs, build.node, "Loop", count, true, *self._starts, body=self._graph)
        return outputs


def filled(build: Builder, table: ir.Value, at: ir.Value, row: ir.Value) -> ir.Value:
    """Return *table* with *row* as its row *at*.

    By a ScatterND, which takes MNN as long as its own loop does; a Where over the table takes four times that
    at 500 steps.
    """
    return build.op("ScatterND", table, build.reshape(at, 1, 1), build.unsqueeze(row, 0))
