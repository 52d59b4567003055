"""Nodes left in training mode.

Measured with MNN 3.6.1: a BatchNormalization with training_mode=1 computes with the stored statistics; a
Dropout with a true training_mode converts with success and the net gives no output.

A BatchNormalization is written out with the statistics of the batch: numerically equal.  Nothing stands for
the chance of a Dropout, but one with a ratio of 0 becomes an Identity.
"""

from __future__ import annotations

from collections.abc import Iterator

from mnnprep.rules.building import given
from mnnprep.rules.editor import Editor
from mnnprep.rules.normalization import lone_dropout
from mnnprep.rules.normalization.statistics import place_of, write_out
from mnnprep.rules.reading import Reading, scalar
from mnnprep.rules.rule import Place, Rewrite, Rule

OPS = ("BatchNormalization", "Dropout")


def find(reading: Reading) -> Iterator[Place]:
    for node, opset in reading.nodes("BatchNormalization"):
        if node.attributes.get_int("training_mode", 0) or (
            opset < 14 and len([o for o in node.outputs if o.name]) > 1
        ):
            yield place_of(node, opset, reading)
    for node, opset in reading.nodes("Dropout"):
        mode, ratio = given(node, 2), given(node, 1)
        if mode is not None and scalar(mode) != 0.0:
            still = ratio is not None and scalar(ratio) == 0.0
            yield Place(
                node=node,
                detail="" if scalar(mode) else "training_mode is computed",
                match=opset,
                repairable=still,
            )


def apply(editor: Editor, place: Place) -> bool:
    return (
        write_out(editor, place)
        if place.node.op_type == "BatchNormalization"
        else lone_dropout.apply(editor, place)
    )


RULE = Rule(
    name="training-mode",
    severity="wrong",
    operators=frozenset(OPS),
    find=find,
    rewrite=Rewrite(apply=apply, exact=False),
    hazard=(
        "MNN does not compute a node in training mode: the stored statistics are used, or the net gives"
        " nothing"
    ),
    remedy="export the model in eval mode",
)
