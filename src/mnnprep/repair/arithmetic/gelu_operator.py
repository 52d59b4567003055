"""Gelu without ``approximate``.

Measured with MNN 3.6.1: MNN computes it by an approximation that is off by up to 4.7e-4, as it does for the
pattern with Erf.

It is written out in an order that MNN leaves as it is.  Numerically equal.
"""

from __future__ import annotations

import numpy as np

from mnnprep.repair.rule import Match, Rewrite, Rule
from mnnprep.repair.support.building import Builder
from mnnprep.repair.support.editor import Editor
from mnnprep.repair.support.reading import ModelView


def _find(view: ModelView) -> list[Match[None]]:
    return [
        Match(at=node, opset=opset)
        for node, opset in view.nodes("Gelu")
        if node.attributes.get_string("approximate", "none") != "tanh"
    ]


def _apply(editor: Editor, match: Match[None]) -> bool:
    node = match.node
    build, x = Builder(editor, node, match.opset), node.inputs[0]
    dtype = editor.view.dtype(x) or "FLOAT"
    erf = build.op("Erf", build.op("Mul", x, build.constant(np.array(np.sqrt(0.5)), dtype)))
    raised = build.op("Add", erf, build.constant(1, dtype))
    build.replace(build.op("Mul", build.op("Mul", x, build.constant(np.array(0.5), dtype)), raised))
    return True


RULE = Rule(
    name="gelu-operator",
    severity="wrong",
    operators=frozenset({"Gelu"}),
    find=_find,
    rewrite=Rewrite(apply=_apply, exact=False),
    hazard="MNN computes the exact Gelu by an approximation that is off by up to 4.7e-4",
    remedy="write it out: (x * 0.5) * (1 + erf(x / sqrt 2))",
)
