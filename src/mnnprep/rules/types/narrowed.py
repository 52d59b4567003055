"""Inputs and outputs of a dtype that MNN narrows.

Measured with MNN 3.6.1: int64 and bool become int32, float64 and float16 float32.
"""

from __future__ import annotations

from mnnprep.rules.reading import Reading
from mnnprep.rules.rule import Place, Rule

WIDE = ("INT64", "UINT64", "UINT32", "DOUBLE")


def find(reading: Reading) -> list[Place]:
    graph = reading.model.graph
    return [
        Place(name=str(v.name), detail=reading.dtype(v).lower())
        for v in (*graph.inputs, *graph.outputs)
        if reading.dtype(v) in WIDE
    ]


RULE = Rule(
    name="narrowed",
    severity="narrowed",
    operators=frozenset(),
    find=find,
    hazard="MNN computes in 32 bits: int64 as int32, float64 as float32",
    remedy="check that every value fits",
)
