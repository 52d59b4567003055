"""Gemm with ``transA=1`` and a constant B.

Measured with MNN 3.6.1: A is not transposed. With a computed B it is right.
"""

from __future__ import annotations

from mnnprep.rules.reading import Reading, stored
from mnnprep.rules.rule import Place, Rule


def find(reading: Reading) -> list[Place]:
    found = reading.nodes("Gemm")
    return [Place(node=node) for node, _ in found if node.attributes.get_int("transA", 0) and stored(node.inputs[1]) is not None]


RULE = Rule(
    name="gemm-trans-a", severity="wrong", operators=frozenset({"Gemm"}), find=find,
    hazard="MNN does not transpose A in a Gemm with transA=1 and a constant B",
    remedy="transpose A before the Gemm",
)  # fmt: skip
