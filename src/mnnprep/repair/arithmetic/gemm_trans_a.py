"""Gemm with ``transA=1`` and a constant B.

Measured with MNN 3.6.1: A is not transposed. With a computed B it is right.

A Transpose stands before it: numerically equal.
"""

from __future__ import annotations

from mnnprep.deps import require
from mnnprep.repair.rule import Match, Rewrite, Rule
from mnnprep.repair.support.editor import Editor
from mnnprep.repair.support.reading import ModelView, stored


def _find(view: ModelView) -> list[Match[None]]:
    found = view.nodes("Gemm")
    return [
        Match(at=node)
        for node, _ in found
        if node.attributes.get_int("transA", 0) and stored(node.inputs[1]) is not None
    ]


def _apply(editor: Editor, match: Match[None]) -> bool:
    node = match.node
    node.replace_input_with(0, editor.add(node, "Transpose", node.inputs[0], perm=[1, 0]))
    node.attributes.add(require("onnx_ir").AttrInt64("transA", 0))
    return True


RULE = Rule(
    name="gemm-trans-a",
    severity="wrong",
    operators=frozenset({"Gemm"}),
    find=_find,
    rewrite=Rewrite(apply=_apply, exact=False),
    hazard="MNN does not transpose A in a Gemm with transA=1 and a constant B",
    remedy="transpose A before the Gemm",
)
