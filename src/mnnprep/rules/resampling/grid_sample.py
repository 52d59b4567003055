"""GridSample that is cubic, nearest or reflects.

Measured with MNN 3.6.1: cubic is computed as linear; nearest rounds a half another way; reflection folds at other places.
"""

from __future__ import annotations

from collections.abc import Iterator

from mnnprep.rules.reading import Reading
from mnnprep.rules.rule import Place, Rule


def find(reading: Reading) -> Iterator[Place]:
    for node, _ in reading.nodes("GridSample"):
        mode = node.attributes.get_string("mode", "linear")
        if mode not in ("linear", "bilinear"):
            yield Place(node=node, detail=mode)
        elif node.attributes.get_string("padding_mode", "zeros") == "reflection":
            yield Place(node=node, detail="reflection")


RULE = Rule(
    name="grid-sample-forms", severity="wrong", operators=frozenset({"GridSample"}), find=find,
    hazard="MNN's GridSample is right for linear with zeros or border only",
    remedy="use linear with padding_mode zeros or border",
)  # fmt: skip
