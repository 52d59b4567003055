"""Equal on floats.

Measured with MNN 3.6.1: the bits are compared: 0 and -0 are different, and a NaN equals itself. Between
integers, and against a constant that is neither 0 nor NaN, it is right.

Written as at least and at most it has ONNX's answers.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from mnnprep.repair.rule import Match, Rewrite, Rule
from mnnprep.repair.support.building import Builder
from mnnprep.repair.support.editor import Editor
from mnnprep.repair.support.opsets import SINCE
from mnnprep.repair.support.reading import ModelView, tensor

if TYPE_CHECKING:
    from mnnprep.repair.support.reading import Operand

FLOATS = ("FLOAT", "FLOAT16", "DOUBLE")


def _find(view: ModelView) -> list[Match[None]]:
    found = [(node, opset) for node, opset in view.nodes("Equal") if view.dtype(node.inputs[0]) in FLOATS]
    return [
        Match(at=node, opset=opset, repairable=opset >= SINCE["GreaterOrEqual"])
        for node, opset in found
        if not any(_plain(value) for value in node.inputs)
    ]


def _apply(editor: Editor, match: Match[None]) -> bool:
    node = match.node
    build = Builder(editor, node, match.opset)
    build.replace(
        build.op("And", build.op("GreaterOrEqual", *node.inputs), build.op("LessOrEqual", *node.inputs))
    )
    return True


def _plain(value: Operand) -> bool:
    held = tensor(value)
    return held is not None and bool(((held.numpy() != 0) & (held.numpy() == held.numpy())).all())


RULE = Rule(
    name="equal-bits",
    severity="narrowed",
    operators=frozenset({"Equal"}),
    find=_find,
    rewrite=Rewrite(apply=_apply, exact=True),
    hazard="MNN compares floats bit by bit: 0 and -0 differ, a NaN equals itself",
    remedy="compare with a tolerance, or integers",
)
