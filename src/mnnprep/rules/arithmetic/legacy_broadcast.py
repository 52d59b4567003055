"""Broadcasting by attributes, as before opset 7.

Measured with MNN 3.6.1: ``broadcast`` and ``axis`` are not read, so operands of other shapes are paired
wrongly.
"""

from __future__ import annotations

from mnnprep.rules.reading import Reading
from mnnprep.rules.rule import Place, Rule

OPS = ("Add", "Sub", "Mul", "Div", "Pow", "And", "Or", "Xor", "Equal", "Greater", "Less", "PRelu", "Gemm")


def find(reading: Reading) -> list[Place]:
    found = [
        node
        for node, opset in reading.nodes(*OPS)
        if opset < 7 and node.attributes.get_int("broadcast", 0) and node.op_type != "Gemm"
    ]
    return [
        Place(node=node)
        for node in found
        if reading.dims(node.inputs[1]) is None
        or any(size != 1 for size in reading.dims(node.inputs[1]) or ())
    ]


RULE = Rule(
    name="legacy-broadcast",
    severity="wrong",
    operators=frozenset(OPS),
    find=find,
    hazard="MNN does not read the attributes broadcast and axis that operators had before opset 7",
    remedy="convert the model to opset 13 first",
)
