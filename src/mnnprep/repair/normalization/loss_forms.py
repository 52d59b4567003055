"""Losses in the graph.

Measured with MNN 3.6.1: with ``ignore_index``, ``reduction=mean`` and no weights, the ignored ones are
counted in the mean; a SoftmaxCrossEntropyLoss with its second output gives a file that MNN can't open.

They are written out with GatherElements and Where.  Numerically equal: sums are taken in another order.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np

from mnnprep.repair.rule import Match, Rewrite, Rule
from mnnprep.repair.support.building import FLOATS, Builder, asked, given
from mnnprep.repair.support.editor import Editor
from mnnprep.repair.support.opsets import ONE_AXIS
from mnnprep.repair.support.reading import ModelView

if TYPE_CHECKING:
    import onnx_ir as ir

    from mnnprep.repair.support.reading import Operand

OPS = ("NegativeLogLikelihoodLoss", "SoftmaxCrossEntropyLoss")


def _find(view: ModelView) -> Iterator[Match[tuple[str, str]]]:
    for node, opset in view.nodes(*OPS):
        dtype, labels = view.dtype(node.inputs[0]), view.dtype(node.inputs[1])
        labelled, able = (dtype, labels), dtype in FLOATS and labels in ("INT32", "INT64")
        mean = node.attributes.get_string("reduction", "mean") == "mean"
        if len(node.outputs) > 1 and node.outputs[1].name:
            yield Match(at=node, detail="log_prob is asked for", opset=opset, found=labelled, repairable=able)
        elif "ignore_index" in node.attributes and mean and given(node, 2) is None:
            yield Match(
                at=node, detail="ignore_index without weights", opset=opset, found=labelled, repairable=able
            )


def _apply(editor: Editor, match: Match[tuple[str, str]]) -> bool:
    node, opset, (dtype, labels) = match.node, match.opset, match.plan
    build, scores, target = Builder(editor, node, opset), node.inputs[0], node.inputs[1]
    if node.op_type == "SoftmaxCrossEntropyLoss":
        scores = _log_softmax(build, scores)
    ignored = _ignored(build, target, labels)
    if ignored is not None:
        target = build.op("Where", ignored, build.constant(0, labels), target)
    found = build.squeeze(build.op("GatherElements", scores, build.unsqueeze(target, 1), axis=1), 1)
    weights = build.op("Gather", given(node, 2), target) if given(node, 2) is not None else None
    if ignored is not None:
        weights = build.op(
            "Where",
            ignored,
            build.constant(0, dtype),
            build.constant(1, dtype) if weights is None else weights,
        )
    loss = build.op("Neg", found if weights is None else build.op("Mul", found, weights))
    log_prob = scores if asked(node, 1) else None
    build.replace(_reduced(build, loss, weights, node.attributes.get_string("reduction", "mean")), log_prob)
    return True


def _log_softmax(build: Builder, scores: Operand) -> ir.Value:
    if build.opset >= ONE_AXIS:
        return build.op("LogSoftmax", scores, axis=1)
    rest = build.op("Sub", scores, build.reduce("ReduceMax", scores, (1,), keep=True))
    return build.op(
        "Sub", rest, build.op("Log", build.reduce("ReduceSum", build.op("Exp", rest), (1,), keep=True))
    )


def _ignored(build: Builder, target: Operand, labels: str) -> ir.Value | None:
    index = build.node.attributes.get_int("ignore_index", None)
    return None if index is None else build.op("Equal", target, build.constant(np.array(index), labels))


def _reduced(build: Builder, loss: ir.Value, weights: Operand, reduction: str) -> ir.Value:
    if reduction == "none":
        return loss
    if reduction == "mean" and weights is None:
        return build.reduce("ReduceMean", loss, None, keep=False)
    total = build.reduce("ReduceSum", loss, None, keep=False)
    return (
        total
        if reduction == "sum"
        else build.op("Div", total, build.reduce("ReduceSum", weights, None, keep=False))
    )


RULE = Rule(
    name="loss-forms",
    severity="wrong",
    operators=frozenset(OPS),
    find=_find,
    rewrite=Rewrite(apply=_apply, exact=False),
    hazard=(
        "MNN counts the elements that ignore_index leaves out in the mean of a loss, and can't give the"
        " loss's log_prob"
    ),
    remedy="leave the loss out of the exported model",
)
