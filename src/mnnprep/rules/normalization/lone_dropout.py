"""Dropout between a graph input and a graph output, or with its mask used.

Measured with MNN 3.6.1: MNN removes a Dropout; what is left of such a net gives no output. The mask is never
there.

Where it is not training it becomes an Identity, and its mask all ones (all true from opset 10 on): the same
bits.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from mnnprep.deps import require
from mnnprep.rules.building import Builder, asked, given
from mnnprep.rules.editor import Editor
from mnnprep.rules.reading import Reading, scalar
from mnnprep.rules.rule import Place, Rewrite, Rule

ALWAYS_STILL = 7  # the opset from which it did nothing at inference, without saying so
BOOL_MASK = 10
MODE_INPUT = 12


def find(reading: Reading) -> Iterator[Place]:
    for node, opset in reading.nodes("Dropout"):
        masked = len(node.outputs) > 1 and (node.outputs[1].is_graph_output() or bool(node.outputs[1].uses()))
        if masked or (
            node.inputs[0] is not None
            and node.inputs[0].is_graph_input()
            and node.outputs[0].is_graph_output()
        ):
            able = _still(node, opset) and (not masked or opset >= 9)
            yield Place(
                node=node,
                detail="its mask" if masked else "between an input and an output",
                match=opset,
                repairable=able,
            )


def _still(node: Any, opset: int) -> bool:
    """Whether it does nothing: not in training, or with a ratio of 0."""
    if opset < MODE_INPUT:
        return not (opset < ALWAYS_STILL and not node.attributes.get_int("is_test", 0))
    mode, ratio = given(node, 2), given(node, 1)
    return mode is None or scalar(mode) == 0.0 or (ratio is not None and scalar(ratio) == 0.0)


def apply(editor: Editor, place: Place) -> bool:
    node = place.node
    build, x = Builder(editor, node, place.match), node.inputs[0]
    mask = None
    if asked(node, 1):
        ones = np.ones(1, bool if place.match >= BOOL_MASK else np.float32)
        mask = build.op("ConstantOfShape", build.op("Shape", x), value=require("onnx_ir").tensor(ones))
    build.replace(build.op("Identity", x), mask)
    return True


RULE = Rule(
    name="lone-dropout",
    severity="wrong",
    operators=frozenset({"Dropout"}),
    find=find,
    rewrite=Rewrite(apply=apply, exact=True),
    hazard=(
        "MNN removes Dropout: its mask is not there, and an output that is nothing but a Dropout of an input"
        " is lost"
    ),
    remedy="export the model in eval mode, without Dropout",
)
