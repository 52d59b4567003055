"""Clip whose lower bound is above its upper one.

ONNX gives the upper bound everywhere. Measured with MNN 3.6.1: the lower one comes out.  It is written as Max
and Min: the same bits.
"""

from __future__ import annotations

from collections.abc import Iterator

from mnnprep.repair.rule import Match, Rewrite, Rule
from mnnprep.repair.support.building import Builder, given
from mnnprep.repair.support.editor import Editor
from mnnprep.repair.support.opsets import INTEGER_BOUNDS
from mnnprep.repair.support.reading import ModelView, scalar


def _find(view: ModelView) -> Iterator[Match[None]]:
    for node, opset in view.nodes("Clip"):
        low, high = scalar(given(node, 1)), scalar(given(node, 2))
        if low is not None and high is not None and low > high:
            yield Match(at=node, opset=opset, repairable=opset >= INTEGER_BOUNDS)


def _apply(editor: Editor, match: Match[None]) -> bool:
    x, low, high = match.node.inputs
    build = Builder(editor, match.node, match.opset)
    build.replace(build.op("Min", build.op("Max", x, low), high))
    return True


RULE = Rule(
    name="clip-bounds",
    severity="wrong",
    operators=frozenset({"Clip"}),
    find=_find,
    rewrite=Rewrite(apply=_apply, exact=True),
    hazard="MNN gives the lower bound if a Clip's lower bound is above its upper bound",
    remedy="write it as Min(Max(x, low), high)",
)
