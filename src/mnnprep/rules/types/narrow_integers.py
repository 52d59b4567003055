"""Arithmetic, comparisons and pooling on 8-bit integers (and on 16-bit ones).

Measured with MNN 3.6.1: Add, Sub, Mul, Max, Min and Mod on int8 or uint8 are a SIGSEGV at run time, comparisons and
BitShift on them give no output.
"""

from __future__ import annotations

from mnnprep.rules.reading import Reading
from mnnprep.rules.rule import Place, Rule

BINARY = (
    "Clip",
    "Add", "Sub", "Mul", "Div", "Max", "Min", "Mod", "Pow", "Equal", "Greater", "GreaterOrEqual", "Less", "LessOrEqual", "BitShift", "Sum", "Mean",
)  # fmt: skip
NARROW = ("INT8", "UINT8")


def find(reading: Reading) -> list[Place]:
    return [
        Place(node=node, detail=dtype.lower())
        for node, _ in reading.nodes(*BINARY)
        if sum(value is not None for value in node.inputs) > 1 and (dtype := reading.dtype(node.inputs[0])) in NARROW
    ]


RULE = Rule(
    name="narrow-integer-arithmetic", severity="crash", operators=frozenset(BINARY), find=find,
    hazard="MNN crashes, or gives nothing, in arithmetic and comparisons on 8-bit integers",
    remedy="cast to int32 before, and back after",
)  # fmt: skip
