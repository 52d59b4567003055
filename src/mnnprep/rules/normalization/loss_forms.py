"""Losses in the graph.

Measured with MNN 3.6.1: with ``ignore_index``, ``reduction=mean`` and no weights, the ignored ones are counted in the mean;
a SoftmaxCrossEntropyLoss with its second output gives a file that MNN can't open.
"""

from __future__ import annotations

from collections.abc import Iterator

from mnnprep.rules.reading import Reading
from mnnprep.rules.rule import Place, Rule

OPS = ("NegativeLogLikelihoodLoss", "SoftmaxCrossEntropyLoss")


def find(reading: Reading) -> Iterator[Place]:
    for node, _ in reading.nodes(*OPS):
        weighted = len(node.inputs) > 2 and node.inputs[2] is not None
        mean = node.attributes.get_string("reduction", "mean") == "mean"
        if len(node.outputs) > 1 and node.outputs[1].name:
            yield Place(node=node, detail="log_prob is asked for")
        elif "ignore_index" in node.attributes and mean and not weighted:
            yield Place(node=node, detail="ignore_index without weights")


RULE = Rule(
    name="loss-forms", severity="wrong", operators=frozenset(OPS), find=find,
    hazard="MNN counts what ignore_index leaves out in the mean of a loss, and can't give the loss's log_prob",
    remedy="leave the loss out of the exported model",
)  # fmt: skip
