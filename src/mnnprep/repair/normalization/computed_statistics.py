"""BatchNormalization whose scale, bias, mean or variance is computed or an input.

Measured with MNN 3.6.1: a SIGSEGV of the converter, always.

It is written out with Sub, Div, Mul and Add: numerically equal.
"""

from __future__ import annotations

from mnnprep.repair.rule import Match, Rewrite, Rule
from mnnprep.repair.support.reading import ModelView, stored
from mnnprep.repair.support.statistics import match_of, write_out


def _find(view: ModelView) -> list[Match[tuple[str, int]]]:
    found = view.nodes("BatchNormalization")
    return [
        match_of(node, opset, view)
        for node, opset in found
        if any(stored(value) is None for value in node.inputs[1:5])
    ]


RULE = Rule(
    name="computed-statistics",
    severity="crash",
    operators=frozenset({"BatchNormalization"}),
    find=_find,
    rewrite=Rewrite(apply=write_out, exact=False),
    hazard="MNN's converter crashes on a BatchNormalization whose parameters are not constants",
    remedy="make the parameters initializers, or write the normalization as Sub, Mul and Add",
)
