"""Nodes left in training mode.

Measured with MNN 3.6.1: a BatchNormalization with training_mode=1 computes with the stored statistics; a
Dropout with a true training_mode converts with success and the net gives no output.

A BatchNormalization is written out with the statistics of the batch: numerically equal.  Nothing stands for
the chance of a Dropout, but one with a ratio of 0 becomes an Identity.
"""

from __future__ import annotations

from collections.abc import Iterator

from mnnprep.repair.normalization import lone_dropout
from mnnprep.repair.rule import Match, Rewrite, Rule
from mnnprep.repair.support.building import given
from mnnprep.repair.support.editor import Editor
from mnnprep.repair.support.reading import ModelView, scalar
from mnnprep.repair.support.statistics import in_training, match_of, write_out

OPS = ("BatchNormalization", "Dropout")


def _find(view: ModelView) -> Iterator[Match[tuple[str, int]]]:
    for node, opset in view.nodes("BatchNormalization"):
        if in_training(node, opset):
            yield match_of(node, opset, view)
    for node, opset in view.nodes("Dropout"):
        mode, ratio = given(node, 2), given(node, 1)
        if mode is not None and scalar(mode) != 0.0:
            still = ratio is not None and scalar(ratio) == 0.0
            yield Match(
                at=node,
                detail="" if scalar(mode) else "training_mode is computed",
                opset=opset,
                repairable=still,
            )


def _apply(editor: Editor, match: Match[tuple[str, int]]) -> bool:
    return (
        write_out(editor, match)
        if match.node.op_type == "BatchNormalization"
        else lone_dropout.leave_out(editor, match.node, match.opset)
    )


RULE = Rule(
    name="training-mode",
    severity="wrong",
    operators=frozenset(OPS),
    find=_find,
    rewrite=Rewrite(apply=_apply, exact=False),
    hazard=(
        "MNN does not compute a node in training mode: the stored statistics are used, or the net gives"
        " nothing"
    ),
    remedy="export the model in eval mode",
)
