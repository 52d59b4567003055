"""Sequences, optionals and maps as inputs or outputs of the graph.

Measured with MNN 3.6.1: they can be neither fed nor read.
"""

from __future__ import annotations

from mnnprep.deps import require
from mnnprep.repair.rule import Match, Rule
from mnnprep.repair.support.reading import ModelView


def _find(view: ModelView) -> list[Match[None]]:
    ir = require("onnx_ir")
    graph = view.model.graph
    return [
        Match(at=str(value.name))
        for value in (*graph.inputs, *graph.outputs)
        if value.type is not None and not isinstance(value.type, (ir.TensorType, ir.SparseTensorType))
    ]


RULE = Rule(
    name="sequences-outside",
    severity="refused",
    operators=frozenset(),
    find=_find,
    hazard="MNN can neither take nor give a sequence or an optional",
    remedy="give and take plain tensors",
)
