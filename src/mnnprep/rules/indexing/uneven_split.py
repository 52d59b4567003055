"""Split into ``num_outputs`` parts of which the last is smaller (opset 18).

Measured with MNN 3.6.1: the parts have the size of the smaller one.
"""

from __future__ import annotations

from collections.abc import Iterator

from mnnprep.rules.reading import Reading
from mnnprep.rules.rule import Place, Rule


def find(reading: Reading) -> Iterator[Place]:
    for node, _ in reading.nodes("Split"):
        parts, dims = node.attributes.get_int("num_outputs", 0), reading.dims(node.inputs[0])
        if not parts or (len(node.inputs) > 1 and node.inputs[1] is not None) or dims is None:
            continue
        size = dims[node.attributes.get_int("axis", 0)]
        if isinstance(size, int) and size % parts:
            yield Place(node=node, detail=f"{size} in {parts} parts")


RULE = Rule(
    name="uneven-split", severity="wrong", operators=frozenset({"Split"}), find=find,
    hazard="MNN splits unevenly where num_outputs does not divide the axis",
    remedy="give the sizes of the parts",
)  # fmt: skip
