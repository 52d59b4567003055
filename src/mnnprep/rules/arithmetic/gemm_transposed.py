"""Gemm with ``transA=1`` and a constant B.

Measured with MNN 3.6.1: A is not transposed. With a computed B it is right.

A Transpose stands before it: numerically equal.
"""

from __future__ import annotations

from mnnprep.deps import require
from mnnprep.rules.editor import Editor
from mnnprep.rules.reading import Reading, stored
from mnnprep.rules.rule import Place, Rewrite, Rule


def find(reading: Reading) -> list[Place]:
    found = reading.nodes("Gemm")
    return [
        Place(node=node)
        for node, _ in found
        if node.attributes.get_int("transA", 0) and stored(node.inputs[1]) is not None
    ]


def apply(editor: Editor, place: Place) -> bool:
    node = place.node
    node.replace_input_with(0, editor.add(node, "Transpose", node.inputs[0], perm=[1, 0]))
    node.attributes.add(require("onnx_ir").AttrInt64("transA", 0))
    return True


RULE = Rule(
    name="gemm-trans-a",
    severity="wrong",
    operators=frozenset({"Gemm"}),
    find=find,
    rewrite=Rewrite(apply=apply, exact=False),
    hazard="MNN does not transpose A in a Gemm with transA=1 and a constant B",
    remedy="transpose A before the Gemm",
)
