"""BatchNormalization whose scale, bias, mean or variance is computed or an input.

Measured with MNN 3.6.1: a SIGSEGV of the converter, always.
"""

from __future__ import annotations

from mnnprep.rules.reading import Reading, stored
from mnnprep.rules.rule import Place, Rule


def find(reading: Reading) -> list[Place]:
    return [Place(node=node) for node, _ in reading.nodes("BatchNormalization") if any(stored(value) is None for value in node.inputs[1:5])]


RULE = Rule(
    name="computed-statistics", severity="crash", operators=frozenset({"BatchNormalization"}), find=find,
    hazard="MNN's converter crashes on a BatchNormalization whose parameters are not constants",
    remedy="make the parameters initializers, or write the normalization as Sub, Mul and Add",
)  # fmt: skip
