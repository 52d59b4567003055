"""Det of a single matrix.

Measured with MNN 3.6.1: wrong for two dimensions, right for a batch of matrices.
"""

from __future__ import annotations

from mnnprep.rules.reading import Reading
from mnnprep.rules.rule import Place, Rule


def find(reading: Reading) -> list[Place]:
    return [Place(node=node) for node, _ in reading.nodes("Det") if reading.rank(node.inputs[0]) == 2]


RULE = Rule(
    name="det-of-a-matrix", severity="wrong", operators=frozenset({"Det"}), find=find,
    hazard="MNN computes the determinant of a single matrix wrongly",
    remedy="add a batch dimension before, and take it away after",
)  # fmt: skip
