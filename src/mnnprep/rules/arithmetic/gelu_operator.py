"""Gelu without ``approximate``.

Measured with MNN 3.6.1: MNN computes it by an approximation that is off by up to 4.7e-4, as it does for the pattern with Erf.
"""

from __future__ import annotations

from mnnprep.rules.reading import Reading
from mnnprep.rules.rule import Place, Rule


def find(reading: Reading) -> list[Place]:
    return [Place(node=node) for node, _ in reading.nodes("Gelu") if node.attributes.get_string("approximate", "none") != "tanh"]


RULE = Rule(
    name="gelu-operator", severity="wrong", operators=frozenset({"Gelu"}), find=find,
    hazard="MNN computes the exact Gelu by an approximation that is off by up to 4.7e-4",
    remedy="write it out: (x * 0.5) * (1 + erf(x / sqrt 2))",
)  # fmt: skip
