"""Pooling over three dimensions with a batch of more than one.

Measured with MNN 3.6.1: the first of the batch is right, the others are not; LpPool over three dimensions is refused.
"""

from __future__ import annotations

from collections.abc import Iterator

from mnnprep.rules.reading import Reading
from mnnprep.rules.rule import Place, Rule

OPS = ("MaxPool", "AveragePool", "LpPool", "GlobalAveragePool", "GlobalMaxPool")


def find(reading: Reading) -> Iterator[Place]:
    for node, _ in reading.nodes(*OPS):
        dims = reading.dims(node.inputs[0])
        rank = len(node.attributes.get_ints("kernel_shape", ())) + 2 if "kernel_shape" in node.attributes else len(dims or ())
        if rank == 5 and (node.op_type == "LpPool" or dims is None or dims[0] != 1):
            yield Place(node=node)


RULE = Rule(
    name="pool-3d", severity="wrong", operators=frozenset(OPS), find=find,
    hazard="MNN pools only the first of a batch over three dimensions, and refuses LpPool there",
    remedy="give the batch one by one, or put the batch among the channels",
)  # fmt: skip
