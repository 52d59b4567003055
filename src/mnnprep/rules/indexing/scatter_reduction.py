"""ScatterElements and ScatterND with a reduction.

Measured with MNN 3.6.1: it is not read: the updates overwrite.
"""

from __future__ import annotations

from mnnprep.rules.reading import Reading
from mnnprep.rules.rule import Place, Rule

OPS = ("ScatterElements", "ScatterND")


def find(reading: Reading) -> list[Place]:
    return [Place(node=node) for node, _ in reading.nodes(*OPS) if node.attributes.get_string("reduction", "none") != "none"]


RULE = Rule(
    name="scatter-reduction", severity="wrong", operators=frozenset(OPS), find=find,
    hazard="MNN overwrites where a Scatter has a reduction",
    remedy="scatter into zeros by a product with a one-hot matrix, or leave the reduction to the app",
)  # fmt: skip
