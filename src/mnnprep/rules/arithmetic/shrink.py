"""Shrink.

Measured with MNN 3.6.1: negative values are not shrunk.
"""

from __future__ import annotations

from mnnprep.rules.reading import Reading
from mnnprep.rules.rule import Place, Rule


def find(reading: Reading) -> list[Place]:
    return [Place(node=node) for node, _ in reading.nodes("Shrink")]


RULE = Rule(
    name="shrink", severity="wrong", operators=frozenset({"Shrink"}), find=find,
    hazard="MNN's Shrink leaves negative values wrong",
    remedy="write it with Where and comparisons",
)  # fmt: skip
