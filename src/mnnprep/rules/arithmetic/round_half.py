"""Round, which takes a half to the even neighbour.

Measured with MNN 3.6.1: a half goes away from zero.
"""

from __future__ import annotations

from mnnprep.rules.reading import Reading
from mnnprep.rules.rule import Place, Rule


def find(reading: Reading) -> list[Place]:
    return [Place(node=node) for node, _ in reading.nodes("Round")]


RULE = Rule(
    name="round-half", severity="wrong", operators=frozenset({"Round"}), find=find,
    hazard="MNN rounds a half away from zero, where ONNX rounds it to the even neighbour",
    remedy="accept it where no value is a half, or round by Floor and a comparison",
)  # fmt: skip
