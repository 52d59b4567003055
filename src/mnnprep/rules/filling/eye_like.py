"""EyeLike with a dtype of its own.

Measured with MNN 3.6.1: the dtype of the input is given.
"""

from __future__ import annotations

from collections.abc import Iterator

from mnnprep.rules.reading import Reading, known
from mnnprep.rules.rule import Place, Rule


def find(reading: Reading) -> Iterator[Place]:
    for node, _ in reading.nodes("EyeLike"):
        if "dtype" in node.attributes and known(node.attributes.get_int("dtype", 1)) != reading.dtype(node.inputs[0]):
            yield Place(node=node)


RULE = Rule(
    name="eye-like-dtype", severity="wrong", operators=frozenset({"EyeLike"}), find=find,
    hazard="MNN gives the dtype of the input for an EyeLike that asks for another",
    remedy="cast its result",
)  # fmt: skip
