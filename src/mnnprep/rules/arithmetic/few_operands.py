"""Max, Min, Sum and Mean of a single operand, Mean of two.

Measured with MNN 3.6.1: one operand is a SIGSEGV of the converter; a Mean of two gives no output.

The only operand stands in its place, and a Mean of two is half their sum.  The same bits, but where the sum
overflows as it would before.
"""

from __future__ import annotations

import numpy as np

from mnnprep.rules.building import Builder
from mnnprep.rules.editor import Editor
from mnnprep.rules.reading import Reading
from mnnprep.rules.rule import Place, Rewrite, Rule

OPS = ("Max", "Min", "Sum", "Mean")


def find(reading: Reading) -> list[Place]:
    return [
        Place(node=node, match=opset)
        for node, opset in reading.nodes(*OPS)
        if len(node.inputs) < (3 if node.op_type == "Mean" else 2)
    ]


def apply(editor: Editor, place: Place) -> bool:
    node = place.node
    build = Builder(editor, node, place.match)
    if len(node.inputs) == 1:
        build.replace(build.op("Identity", node.inputs[0]))
        return True
    total = build.op("Add", *node.inputs)
    half = build.constant(np.array(0.5), editor.reading.dtype(node.inputs[0]) or "FLOAT")
    build.replace(build.op("Mul", total, half))
    return True


RULE = Rule(
    name="few-operands",
    severity="crash",
    operators=frozenset(OPS),
    find=find,
    rewrite=Rewrite(apply=apply, exact=True),
    hazard=(
        "MNN's converter crashes on Max, Min, Sum and Mean of one operand, and a Mean of two gives nothing"
    ),
    remedy="leave out what has one operand; write the Mean of two as (a + b) * 0.5",
)
