"""Dropout between a graph input and a graph output, or with its mask used.

Measured with MNN 3.6.1: MNN removes a Dropout; what is left of such a net gives no output. The mask is never there.
"""

from __future__ import annotations

from collections.abc import Iterator

from mnnprep.rules.reading import Reading
from mnnprep.rules.rule import Place, Rule


def find(reading: Reading) -> Iterator[Place]:
    for node, _ in reading.nodes("Dropout"):
        masked = len(node.outputs) > 1 and (node.outputs[1].is_graph_output() or bool(node.outputs[1].uses()))
        if masked or (node.inputs[0] is not None and node.inputs[0].is_graph_input() and node.outputs[0].is_graph_output()):
            yield Place(node=node, detail="its mask" if masked else "between an input and an output")


RULE = Rule(
    name="lone-dropout", severity="wrong", operators=frozenset({"Dropout"}), find=find,
    hazard="MNN removes Dropout: its mask is not there, and an output that is nothing but a Dropout of an input is lost",
    remedy="export the model in eval mode, without Dropout",
)  # fmt: skip
