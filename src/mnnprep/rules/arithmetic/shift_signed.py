"""BitShift of signed integers by a constant that is negative, or as wide as they are.

Measured with MNN 3.6.1: a shift by a negative number, or by the width and more, is not what ONNX says (opset 28).
"""

from __future__ import annotations

from mnnprep.rules.reading import Array, Reading, tensor
from mnnprep.rules.rule import Place, Rule

WIDTH = {"INT8": 8, "INT16": 16, "INT32": 32, "INT64": 32}  # in MNN


def find(reading: Reading) -> list[Place]:
    found = [(node, tensor(node.inputs[1]), WIDTH.get(reading.dtype(node.inputs[0]), 0)) for node, _ in reading.nodes("BitShift")]
    return [Place(node=node) for node, shift, width in found if width and shift is not None and _beyond(shift.numpy(), width)]


def _beyond(shift: Array, width: int) -> bool:
    return bool(((shift < 0) | (shift >= width)).any())


RULE = Rule(
    name="shift-signed", severity="wrong", operators=frozenset({"BitShift"}), find=find,
    hazard="MNN's BitShift on signed integers is wrong for shifts that are negative or as wide as the number",
    remedy="shift unsigned integers, or multiply by a power of two",
)  # fmt: skip
