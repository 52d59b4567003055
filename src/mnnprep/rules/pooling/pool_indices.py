"""MaxPool's indices in column-major order, MaxUnpool with an output shape.

Measured with MNN 3.6.1: ``storage_order`` is not read, and neither is the third input of MaxUnpool.
"""

from __future__ import annotations

from collections.abc import Iterator

from mnnprep.rules.reading import Reading
from mnnprep.rules.rule import Place, Rule

OPS = ("MaxPool", "MaxUnpool")


def find(reading: Reading) -> Iterator[Place]:
    for node, _ in reading.nodes("MaxPool"):
        if len(node.outputs) > 1 and node.attributes.get_int("storage_order", 0):
            yield Place(node=node, detail="storage_order=1")
    for node, _ in reading.nodes("MaxUnpool"):
        if len(node.inputs) > 2 and node.inputs[2] is not None:
            yield Place(node=node, detail="an output shape")


RULE = Rule(
    name="pool-indices", severity="wrong", operators=frozenset(OPS), find=find,
    hazard="MNN reads neither storage_order of MaxPool's indices nor the output shape of MaxUnpool",
    remedy="export with storage_order=0 and without an output shape",
)  # fmt: skip
