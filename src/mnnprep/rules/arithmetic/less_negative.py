"""Less on floats, of which both may be negative.

Measured with MNN 3.6.1: on x86 the answer is wrong where both operands are negative. Against a constant that is nowhere
negative it is right, and so is Greater.
"""

from __future__ import annotations

from typing import Any

from mnnprep.rules.reading import Reading, producer, tensor
from mnnprep.rules.rule import Place, Rule

FLOATS = ("FLOAT", "FLOAT16", "DOUBLE", "BFLOAT16", "")


def find(reading: Reading) -> list[Place]:
    return [
        Place(node=node)
        for node, _ in reading.nodes("Less")
        if reading.dtype(node.inputs[0]) in FLOATS and not any(_never_negative(value) for value in node.inputs)
    ]


def _never_negative(value: Any) -> bool:
    cast = producer(value, "Cast", "CastLike")
    found = tensor(cast.inputs[0] if cast is not None else value)
    return found is not None and found.numpy().dtype.kind in "fiub" and bool((found.numpy() >= 0).all())


RULE = Rule(
    name="less-negative", severity="wrong", operators=frozenset({"Less"}), find=find,
    hazard="MNN answers Less wrongly where both operands are negative",
    remedy="write a < b as b > a",
)  # fmt: skip
