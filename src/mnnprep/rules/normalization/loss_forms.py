"""Losses in the graph.

Measured with MNN 3.6.1: with ``ignore_index``, ``reduction=mean`` and no weights, the ignored ones are
counted in the mean; a SoftmaxCrossEntropyLoss with its second output gives a file that MNN can't open.

They are written out with GatherElements and Where.  Numerically equal: sums are taken in another order.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from mnnprep.rules.building import FLOATS, Builder, asked, given
from mnnprep.rules.editor import Editor
from mnnprep.rules.reading import Reading
from mnnprep.rules.rule import Place, Rewrite, Rule

OPS = ("NegativeLogLikelihoodLoss", "SoftmaxCrossEntropyLoss")
ANY_RANK = 13  # the opset from which LogSoftmax takes one axis alone


def find(reading: Reading) -> Iterator[Place]:
    for node, opset in reading.nodes(*OPS):
        dtype, labels = reading.dtype(node.inputs[0]), reading.dtype(node.inputs[1])
        match, able = (opset, dtype, labels), dtype in FLOATS and labels in ("INT32", "INT64")
        mean = node.attributes.get_string("reduction", "mean") == "mean"
        if len(node.outputs) > 1 and node.outputs[1].name:
            yield Place(node=node, detail="log_prob is asked for", match=match, repairable=able)
        elif "ignore_index" in node.attributes and mean and given(node, 2) is None:
            yield Place(node=node, detail="ignore_index without weights", match=match, repairable=able)


def apply(editor: Editor, place: Place) -> bool:
    node, (opset, dtype, labels) = place.node, place.match
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


def _log_softmax(build: Builder, scores: Any) -> Any:
    if build.opset >= ANY_RANK:
        return build.op("LogSoftmax", scores, axis=1)
    rest = build.op("Sub", scores, build.reduce("ReduceMax", scores, (1,), keep=True))
    return build.op(
        "Sub", rest, build.op("Log", build.reduce("ReduceSum", build.op("Exp", rest), (1,), keep=True))
    )


def _ignored(build: Builder, target: Any, labels: str) -> Any:
    index = build.node.attributes.get_int("ignore_index", None)
    return None if index is None else build.op("Equal", target, build.constant(np.array(index), labels))


def _reduced(build: Builder, loss: Any, weights: Any, reduction: str) -> Any:
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
    find=find,
    rewrite=Rewrite(apply=apply, exact=False),
    hazard=(
        "MNN counts what ignore_index leaves out in the mean of a loss, and can't give the loss's log_prob"
    ),
    remedy="leave the loss out of the exported model",
)
