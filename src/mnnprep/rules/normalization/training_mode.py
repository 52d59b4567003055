"""Nodes left in training mode.

Measured with MNN 3.6.1: a BatchNormalization with training_mode=1 computes with the stored statistics; a Dropout with a true
training_mode converts with success and the net gives no output.
"""

from __future__ import annotations

from collections.abc import Iterator

from mnnprep.rules.reading import Reading, scalar
from mnnprep.rules.rule import Place, Rule

OPS = ("BatchNormalization", "Dropout")


def find(reading: Reading) -> Iterator[Place]:
    for node, opset in reading.nodes("BatchNormalization"):
        if node.attributes.get_int("training_mode", 0) or (opset < 14 and len([o for o in node.outputs if o.name]) > 1):
            yield Place(node=node)
    for node, _ in reading.nodes("Dropout"):
        mode = node.inputs[2] if len(node.inputs) > 2 else None
        if mode is not None and scalar(mode) != 0.0:
            yield Place(node=node, detail="" if scalar(mode) else "training_mode is computed")


RULE = Rule(
    name="training-mode", severity="wrong", operators=frozenset(OPS), find=find,
    hazard="MNN does not compute a node in training mode: the stored statistics are used, or the net gives nothing",
    remedy="export the model in eval mode",
)  # fmt: skip
