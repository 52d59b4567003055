"""Pad with axes, in mode wrap, or with its value as an attribute (before opset 11).

Measured with MNN 3.6.1: axes give a SIGABRT or no output; wrap is refused; the value of an older Pad is not read.
"""

from __future__ import annotations

from collections.abc import Iterator

from mnnprep.rules.reading import Reading
from mnnprep.rules.rule import Place, Rule


def find(reading: Reading) -> Iterator[Place]:
    for node, opset in reading.nodes("Pad"):
        if len(node.inputs) > 3 and node.inputs[3] is not None:
            yield Place(node=node, detail="axes")
        elif node.attributes.get_string("mode", "constant") == "wrap":
            yield Place(node=node, detail="wrap")
        elif opset < 11 and node.attributes.get_float("value", 0.0):
            yield Place(node=node, detail="a value as an attribute")


RULE = Rule(
    name="pad-forms", severity="crash", operators=frozenset({"Pad"}), find=find,
    hazard="MNN crashes on a Pad with axes, refuses wrap, and takes 0 for the value of a Pad before opset 11",
    remedy="pad all axes, and give the value as an input (opset 11)",
)  # fmt: skip
