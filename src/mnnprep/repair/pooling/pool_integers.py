"""MaxPool of 8-bit integers.

Measured with MNN 3.6.1: other numbers, as quantized networks show that pool what they store.  It is pooled as
float32, which holds every such integer.
"""

from __future__ import annotations

from mnnprep.repair.rule import Match, Rewrite, Rule
from mnnprep.repair.support.building import Builder, attributes_of, fed
from mnnprep.repair.support.editor import Editor
from mnnprep.repair.support.reading import ModelView

STORED = ("INT8", "UINT8")


def _find(view: ModelView) -> list[Match[str]]:
    return [
        Match(at=node, detail=dtype.lower(), opset=opset, found=dtype, repairable=len(node.outputs) == 1)
        for node, opset in view.nodes("MaxPool")
        if (dtype := view.dtype(node.inputs[0])) in STORED
    ]


def _apply(editor: Editor, match: Match[str]) -> bool:
    node = match.node
    build = Builder(editor, node, match.opset)
    pooled = build.op("MaxPool", build.cast(fed(node, 0), "FLOAT"), **attributes_of(node))
    build.replace_only(build.cast(build.cast(pooled, "INT32"), match.plan))
    return True


RULE = Rule(
    name="pool-integers",
    severity="wrong",
    operators=frozenset({"MaxPool"}),
    find=_find,
    rewrite=Rewrite(apply=_apply, exact=True),
    hazard="MNN's MaxPool of 8-bit integers gives other numbers",
    remedy="pool before the numbers are quantized",
)
