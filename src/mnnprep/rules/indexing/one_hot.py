"""OneHot.

Measured with MNN 3.6.1: a depth that is not an int32 or int64 is read as other bits (a loop without end at run time); without ``axis``
the new axis is not the last.
"""

from __future__ import annotations

from collections.abc import Iterator

from mnnprep.rules.reading import Reading
from mnnprep.rules.rule import Place, Rule


def find(reading: Reading) -> Iterator[Place]:
    for node, _ in reading.nodes("OneHot"):
        if reading.dtype(node.inputs[1]) not in ("INT32", "INT64", ""):
            yield Place(node=node, detail="the depth is no integer")
        elif "axis" not in node.attributes:
            yield Place(node=node, detail="without axis")


RULE = Rule(
    name="one-hot", severity="wrong", operators=frozenset({"OneHot"}), find=find,
    hazard="MNN reads a depth of OneHot that is no integer as other bits, and does not apply its default axis",
    remedy="give the depth as int64 and write the axis out",
)  # fmt: skip
