"""Reductions without ``keepdims``, but for Sum, Mean, Max, Min and Prod.

Measured with MNN 3.6.1: the default of 1 is not applied: the dimensions are gone.  It is written out: the
same bits.
"""

from __future__ import annotations

from mnnprep.deps import require
from mnnprep.rules.editor import Editor
from mnnprep.rules.reading import Reading
from mnnprep.rules.rule import Place, Rewrite, Rule

OPS = ("ReduceL1", "ReduceL2", "ReduceLogSum", "ReduceLogSumExp", "ReduceSumSquare")


def find(reading: Reading) -> list[Place]:
    return [Place(node=node) for node, _ in reading.nodes(*OPS) if "keepdims" not in node.attributes]


def apply(editor: Editor, place: Place) -> bool:
    place.node.attributes.add(require("onnx_ir").AttrInt64("keepdims", 1))
    return True


RULE = Rule(
    name="reduce-keepdims",
    severity="wrong",
    operators=frozenset(OPS),
    find=find,
    rewrite=Rewrite(apply=apply, exact=True),
    hazard="MNN does not apply the default keepdims=1 of ReduceL1, L2, LogSum, LogSumExp and SumSquare",
    remedy="write keepdims out",
)
