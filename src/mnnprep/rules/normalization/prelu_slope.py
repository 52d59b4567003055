"""PRelu with a constant slope that is neither one number, nor one per channel, nor of the input's shape.

Measured with MNN 3.6.1: its numbers are taken as one per channel.
"""

from __future__ import annotations

from collections.abc import Iterator

from mnnprep.rules.reading import Reading, stored
from mnnprep.rules.rule import Place, Rule


def find(reading: Reading) -> Iterator[Place]:
    for node, opset in reading.nodes("PRelu"):
        slope, rank = stored(node.inputs[1]), reading.rank(node.inputs[0])
        if slope is None or rank is None or opset < 7:  # before, a vector was one number per channel
            continue
        sizes = tuple(slope.shape.numpy())
        full = (1,) * (rank - len(sizes)) + sizes
        wide = [axis for axis, size in enumerate(full) if size != 1]
        if wide not in ([], [1]) and len(sizes) < rank:
            yield Place(node=node, detail=f"slope of the shape {list(sizes)}")


RULE = Rule(
    name="prelu-slope", severity="wrong", operators=frozenset({"PRelu"}), find=find,
    hazard="MNN takes the slope of PRelu as one number per channel, whatever axis it is for",
    remedy="write it as Where(x < 0, slope * x, x)",
)  # fmt: skip
