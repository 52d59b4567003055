"""Upsample with computed scales.

Measured with MNN 3.6.1: no output; with constant ones it is right.
"""

from __future__ import annotations

from mnnprep.repair.rule import Match, Rule
from mnnprep.repair.support.reading import ModelView, stored


def _find(view: ModelView) -> list[Match[None]]:
    return [
        Match(at=node)
        for node, _ in view.nodes("Upsample")
        if len(node.inputs) > 1 and stored(node.inputs[1]) is None
    ]


RULE = Rule(
    name="upsample-scales",
    severity="wrong",
    operators=frozenset({"Upsample"}),
    find=_find,
    hazard="MNN gives nothing for an Upsample whose scales are not constant",
    remedy="make the scales an initializer, or use Resize",
)
