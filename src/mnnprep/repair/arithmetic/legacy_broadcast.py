"""Broadcasting by attributes, as before opset 7.

Measured with MNN 3.6.1: ``broadcast`` and ``axis`` are not read, so operands of other shapes are paired
wrongly.
"""

from __future__ import annotations

from mnnprep.repair.rule import Match, Rule
from mnnprep.repair.support.opsets import BROADCASTING
from mnnprep.repair.support.reading import ModelView

OPS = ("Add", "Sub", "Mul", "Div", "Pow", "And", "Or", "Xor", "Equal", "Greater", "Less", "PRelu", "Gemm")


def _find(view: ModelView) -> list[Match[None]]:
    found = [
        node
        for node, opset in view.nodes(*OPS)
        if opset < BROADCASTING and node.attributes.get_int("broadcast", 0) != 0 and node.op_type != "Gemm"
    ]
    return [
        Match(at=node)
        for node in found
        if view.dims(node.inputs[1]) is None or any(size != 1 for size in view.dims(node.inputs[1]) or ())
    ]


RULE = Rule(
    name="legacy-broadcast",
    severity="wrong",
    operators=frozenset(OPS),
    find=_find,
    hazard="MNN does not read the attributes broadcast and axis that operators had before opset 7",
    remedy="convert the model to opset 13 first",
)
