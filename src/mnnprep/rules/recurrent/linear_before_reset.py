"""GRU with linear_before_reset=0, ONNX's default.

Measured with MNN 3.6.1: MNN always computes as with 1 (which is torch's form).
"""

from __future__ import annotations

from mnnprep.rules.reading import Reading
from mnnprep.rules.rule import Place, Rule


def find(reading: Reading) -> list[Place]:
    return [Place(node=node) for node, _ in reading.nodes("GRU") if not node.attributes.get_int("linear_before_reset", 0)]


RULE = Rule(
    name="gru-linear-before-reset", severity="wrong", operators=frozenset({"GRU"}), find=find,
    hazard="MNN computes every GRU as with linear_before_reset=1",
    remedy="export a GRU of torch's form (linear_before_reset=1), or write it out with MatMul",
)  # fmt: skip
