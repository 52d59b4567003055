"""Softmax before opset 13 without ``axis``, whose default there is 1.

Measured with MNN 3.6.1: the last axis is taken, so only a tensor of two dimensions comes out right; a squeezenet was off by 0.999.
"""

from __future__ import annotations

from mnnprep.rules.reading import Reading
from mnnprep.rules.rule import Place, Rule


def find(reading: Reading) -> list[Place]:
    found = [(node, opset) for node, opset in reading.nodes("Softmax") if opset < 13 and "axis" not in node.attributes]
    return [Place(node=node, match=opset) for node, opset in found if reading.rank(node.inputs[0]) != 2]


RULE = Rule(
    name="softmax-axis", severity="wrong", operators=frozenset({"Softmax"}), find=find,
    hazard="MNN does not apply the default axis=1 of a Softmax before opset 13",
    remedy="write the axis out, or export at opset 13",
)  # fmt: skip
