"""Reductions without ``keepdims``, but for Sum, Mean, Max, Min and Prod.

Measured with MNN 3.6.1: the default of 1 is not applied: the dimensions are gone.  It is written out: the
same bits.
"""

from __future__ import annotations

from mnnprep.deps import require
from mnnprep.repair.rule import Match, Rewrite, Rule
from mnnprep.repair.support.editor import Editor
from mnnprep.repair.support.reading import ModelView

OPS = ("ReduceL1", "ReduceL2", "ReduceLogSum", "ReduceLogSumExp", "ReduceSumSquare")


def _find(view: ModelView) -> list[Match[None]]:
    return [Match(at=node) for node, _ in view.nodes(*OPS) if "keepdims" not in node.attributes]


def _apply(editor: Editor, match: Match[None]) -> bool:
    match.node.attributes.add(require("onnx_ir").AttrInt64("keepdims", 1))
    return True


RULE = Rule(
    name="reduce-keepdims",
    severity="wrong",
    operators=frozenset(OPS),
    find=_find,
    rewrite=Rewrite(apply=_apply, exact=True),
    hazard="MNN does not apply the default keepdims=1 of ReduceL1, L2, LogSum, LogSumExp and SumSquare",
    remedy="write keepdims out",
)
