"""Equal on floats.

Measured with MNN 3.6.1: the bits are compared: 0 and -0 are different, and a NaN equals itself. Between integers, and against a constant
that is neither 0 nor NaN, it is right.
"""

from __future__ import annotations

from typing import Any

from mnnprep.rules.reading import Reading, tensor
from mnnprep.rules.rule import Place, Rule

FLOATS = ("FLOAT", "FLOAT16", "DOUBLE")


def find(reading: Reading) -> list[Place]:
    found = [node for node, _ in reading.nodes("Equal") if reading.dtype(node.inputs[0]) in FLOATS]
    return [Place(node=node) for node in found if not any(_plain(value) for value in node.inputs)]


def _plain(value: Any) -> bool:
    held = tensor(value)
    return held is not None and bool(((held.numpy() != 0) & (held.numpy() == held.numpy())).all())


RULE = Rule(
    name="equal-bits", severity="narrowed", operators=frozenset({"Equal"}), find=find,
    hazard="MNN compares floats bit by bit: 0 and -0 differ, a NaN equals itself",
    remedy="compare with a tolerance, or integers",
)  # fmt: skip
