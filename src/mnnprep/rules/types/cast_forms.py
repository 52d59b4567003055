"""Cast to bool from a float, and to uint8.

Measured with MNN 3.6.1: a float below 1 becomes false; a Cast to uint8 is a SIGSEGV of the converter.
"""

from __future__ import annotations

from collections.abc import Iterator

from mnnprep.rules.reading import Reading, known
from mnnprep.rules.rule import Place, Rule


def find(reading: Reading) -> Iterator[Place]:
    for node, _ in reading.nodes("Cast"):
        target = known(node.attributes.get_int("to", 1))
        if target == "UINT8":
            yield Place(node=node, detail="to uint8")
        elif target == "BOOL" and reading.dtype(node.inputs[0]) in ("FLOAT", "FLOAT16", "DOUBLE", "BFLOAT16"):
            yield Place(node=node, detail="of a float to bool")


RULE = Rule(
    name="cast-forms", severity="wrong", operators=frozenset({"Cast"}), find=find,
    hazard="MNN's Cast of a float to bool cuts off the fraction, and a Cast to uint8 crashes the converter",
    remedy="compare with 0 in place of a Cast to bool; cast to int32 in place of uint8",
)  # fmt: skip
