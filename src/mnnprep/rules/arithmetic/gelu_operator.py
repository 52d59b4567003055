"""Gelu without ``approximate``.

Measured with MNN 3.6.1: MNN computes it by an approximation that is off by up to 4.7e-4, as it does for the
pattern with Erf.

It is written out in an order that MNN leaves as it is.  Numerically equal.
"""

from __future__ import annotations

import numpy as np

from mnnprep.rules.building import Builder
from mnnprep.rules.editor import Editor
from mnnprep.rules.reading import Reading
from mnnprep.rules.rule import Place, Rewrite, Rule


def find(reading: Reading) -> list[Place]:
    return [
        Place(node=node, match=opset)
        for node, opset in reading.nodes("Gelu")
        if node.attributes.get_string("approximate", "none") != "tanh"
    ]


def apply(editor: Editor, place: Place) -> bool:
    node = place.node
    build, x = Builder(editor, node, place.match), node.inputs[0]
    dtype = editor.reading.dtype(x) or "FLOAT"
    erf = build.op("Erf", build.op("Mul", x, build.constant(np.array(np.sqrt(0.5)), dtype)))
    raised = build.op("Add", erf, build.constant(1, dtype))
    build.replace(build.op("Mul", build.op("Mul", x, build.constant(np.array(0.5), dtype)), raised))
    return True


RULE = Rule(
    name="gelu-operator",
    severity="wrong",
    operators=frozenset({"Gelu"}),
    find=find,
    rewrite=Rewrite(apply=apply, exact=False),
    hazard="MNN computes the exact Gelu by an approximation that is off by up to 4.7e-4",
    remedy="write it out: (x * 0.5) * (1 + erf(x / sqrt 2))",
)
