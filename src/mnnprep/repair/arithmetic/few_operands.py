"""Max, Min, Sum and Mean of a single operand, Mean of two.

Measured with MNN 3.6.1: one operand is a SIGSEGV of the converter; a Mean of two gives no output.

The only operand stands in its place, and a Mean of two is half their sum.  The same bits, but if the sum
overflows as it would before.
"""

from __future__ import annotations

import numpy as np

from mnnprep.repair.rule import Match, Rewrite, Rule
from mnnprep.repair.support.building import Builder
from mnnprep.repair.support.editor import Editor
from mnnprep.repair.support.reading import ModelView

OPS = ("Max", "Min", "Sum", "Mean")


def _find(view: ModelView) -> list[Match[None]]:
    return [
        Match(at=node, opset=opset)
        for node, opset in view.nodes(*OPS)
        if len(node.inputs) < (3 if node.op_type == "Mean" else 2)
    ]


def _apply(editor: Editor, match: Match[None]) -> bool:
    node = match.node
    build = Builder(editor, node, match.opset)
    if len(node.inputs) == 1:
        build.replace(build.op("Identity", node.inputs[0]))
        return True
    total = build.op("Add", *node.inputs)
    half = build.constant(np.array(0.5), editor.view.dtype(node.inputs[0]) or "FLOAT")
    build.replace(build.op("Mul", total, half))
    return True


RULE = Rule(
    name="few-operands",
    severity="crash",
    operators=frozenset(OPS),
    find=_find,
    rewrite=Rewrite(apply=_apply, exact=True),
    hazard=(
        "MNN's converter crashes on Max, Min, Sum and Mean of one operand, and a Mean of two gives nothing"
    ),
    remedy="remove operators of one operand; write a Mean of two as (a + b) * 0.5",
)
