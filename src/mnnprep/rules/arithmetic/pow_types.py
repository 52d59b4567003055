"""Pow of a float to an integer, or the other way round.

Measured with MNN 3.6.1: the net gives no output. Two floats or two integers are right.
"""

from __future__ import annotations

from mnnprep.rules.reading import Reading
from mnnprep.rules.rule import Place, Rule


def find(reading: Reading) -> list[Place]:
    return [Place(node=node) for node, _ in reading.nodes("Pow") if len({_kind(reading.dtype(value)) for value in node.inputs} - {""}) > 1]


def _kind(dtype: str) -> str:
    return "float" if dtype in ("FLOAT", "FLOAT16", "DOUBLE", "BFLOAT16") else "integer" if "INT" in dtype else ""


RULE = Rule(
    name="pow-types", severity="wrong", operators=frozenset({"Pow"}), find=find,
    hazard="MNN gives nothing for a Pow whose operands are a float and an integer",
    remedy="cast the exponent to the base's dtype",
)  # fmt: skip
