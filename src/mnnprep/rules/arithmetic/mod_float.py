"""Mod on floats.

Measured with MNN 3.6.1: neither fmod=0 nor fmod=1 has the sign that it must have where the operands' signs differ.
"""

from __future__ import annotations

from mnnprep.rules.reading import Reading
from mnnprep.rules.rule import Place, Rule


def find(reading: Reading) -> list[Place]:
    return [Place(node=node) for node, _ in reading.nodes("Mod") if reading.dtype(node.inputs[0]) in ("FLOAT", "FLOAT16", "DOUBLE", "BFLOAT16")]


RULE = Rule(
    name="mod-float", severity="wrong", operators=frozenset({"Mod"}), find=find,
    hazard="MNN's Mod on floats has the wrong sign where the operands' signs differ",
    remedy="write it as x - y * Floor(x / y), or with fmod=1 as x - y * Trunc(x / y)",
)  # fmt: skip
