"""Inputs and outputs of a dtype that MNN narrows.

Measured with MNN 3.6.1: int64 and bool become int32, float64 and float16 float32.
"""

from __future__ import annotations

from mnnprep.repair.rule import Match, Rule
from mnnprep.repair.support.reading import ModelView

WIDE = ("INT64", "UINT64", "UINT32", "DOUBLE")


def _find(view: ModelView) -> list[Match[None]]:
    graph = view.model.graph
    return [
        Match(at=str(v.name), detail=view.dtype(v).lower())
        for v in (*graph.inputs, *graph.outputs)
        if view.dtype(v) in WIDE
    ]


RULE = Rule(
    name="narrowed",
    severity="narrowed",
    operators=frozenset(),
    find=_find,
    hazard="MNN computes in 32 bits: int64 as int32, float64 as float32",
    remedy="check that every value fits",
)
