"""Dropout between a graph input and a graph output, or with its mask used.

Measured with MNN 3.6.1: MNN removes a Dropout; what is left of such a net gives no output. The mask is never
there.

If it is not training it becomes an Identity, and its mask all ones (all true from opset 10 on): the same
bits.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np

from mnnprep.deps import require
from mnnprep.repair.rule import Match, Rewrite, Rule
from mnnprep.repair.support.building import Builder, asked, given
from mnnprep.repair.support.editor import Editor
from mnnprep.repair.support.opsets import ANY_CONSTANT, DROPOUT_BOOL_MASK, DROPOUT_IDENTITY, INPUTS_SINCE
from mnnprep.repair.support.reading import ModelView, scalar

if TYPE_CHECKING:
    import onnx_ir as ir


def _find(view: ModelView) -> Iterator[Match[None]]:
    for node, opset in view.nodes("Dropout"):
        masked = len(node.outputs) > 1 and (node.outputs[1].is_graph_output() or bool(node.outputs[1].uses()))
        if masked or (
            node.inputs[0] is not None
            and node.inputs[0].is_graph_input()
            and node.outputs[0].is_graph_output()
        ):
            able = _still(node, opset) and (not masked or opset >= ANY_CONSTANT)
            yield Match(
                at=node,
                detail="its mask" if masked else "between an input and an output",
                opset=opset,
                repairable=able,
            )


def _still(node: ir.Node, opset: int) -> bool:
    """Whether it does nothing: not in training, or with a ratio of 0."""
    if opset < INPUTS_SINCE["Dropout"]:
        return not (opset < DROPOUT_IDENTITY and not node.attributes.get_int("is_test", 0))
    mode, ratio = given(node, 2), given(node, 1)
    return mode is None or scalar(mode) == 0.0 or (ratio is not None and scalar(ratio) == 0.0)


def _apply(editor: Editor, match: Match[None]) -> bool:
    return leave_out(editor, match.node, match.opset)


def leave_out(editor: Editor, node: ir.Node, opset: int) -> bool:
    """Let the input of a Dropout take its place, and ones that of its mask."""
    build, x = Builder(editor, node, opset), node.inputs[0]
    mask = None
    if asked(node, 1):
        ones = np.ones(1, bool if opset >= DROPOUT_BOOL_MASK else np.float32)
        mask = build.op("ConstantOfShape", build.op("Shape", x), value=require("onnx_ir").tensor(ones))
    build.replace(build.op("Identity", x), mask)
    return True


RULE = Rule(
    name="lone-dropout",
    severity="wrong",
    operators=frozenset({"Dropout"}),
    find=_find,
    rewrite=Rewrite(apply=_apply, exact=True),
    hazard=(
        "MNN removes Dropout: its mask is missing, and an output that is only the Dropout of an input is lost"
    ),
    remedy="export the model in eval mode, without Dropout",
)
