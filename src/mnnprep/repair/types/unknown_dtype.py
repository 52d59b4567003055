"""Dtypes that MNN does not have.

Measured with MNN 3.6.1: strings, complex numbers, bfloat16, float8, float4 and the integers of 4 and 2 bits
have no place in it; a graph that computes them converts (or not), then gives nothing, other numbers, or
crashes. Fed to it in float32, or only moved about, the numbers come out as they went in.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from mnnprep.formats.onnx.graph import STANDARD_DOMAINS
from mnnprep.repair.rule import Match, Rule
from mnnprep.repair.support.reading import ModelView

if TYPE_CHECKING:
    import onnx_ir as ir

NEVER = ("STRING", "COMPLEX")
UNKNOWN = (*NEVER, "BFLOAT16", "FLOAT8", "FLOAT4", "FLOAT6", "INT4", "UINT4", "INT2", "UINT2")


def unknown(dtype: str) -> bool:
    """Whether MNN has nothing for the ONNX dtype of this name."""
    return dtype.startswith(UNKNOWN)


# What only moves values about gives them back as they were fed, in float32.
MOVING = frozenset(
    {
        "Compress",
        "Concat",
        "Expand",
        "Flatten",
        "Gather",
        "GatherElements",
        "GatherND",
        "Identity",
        "Reshape",
        "ReverseSequence",
        "Slice",
        "Split",
        "Squeeze",
        "Tile",
        "Transpose",
        "Unique",
        "Unsqueeze",
        "Where",
    }
)


def _moves(node: ir.Node) -> bool:
    """Whether *node* gives back the values it takes: also an Einsum of one operand that drops no axis."""
    if node.op_type == "Einsum" and len(node.inputs) == 1:
        taken, _, given = node.attributes.get_string("equation", "").replace(" ", "").partition("->")
        return sorted(taken) == sorted(given) and len(set(taken)) == len(taken)
    return node.op_type in MOVING


def _find(view: ModelView) -> Iterator[Match[None]]:
    graph = view.model.graph
    for value in (*graph.inputs, *graph.outputs):
        if view.dtype(value).startswith(NEVER):
            yield Match(at=str(value.name), detail=view.dtype(value).lower())
    for value in graph.initializers.values():
        dtype = view.dtype(value)
        if unknown(dtype) and any(use.node.op_type != "CastLike" for use in value.uses()):
            yield Match(at=str(value.name), detail=dtype.lower())
    for node, _ in view.everything:
        if node.domain in STANDARD_DOMAINS and node.op_type != "Constant" and not _moves(node):
            dtype = next((dtype for value in node.outputs if unknown(dtype := view.dtype(value))), "")
            if dtype:
                yield Match(at=node, detail=dtype.lower())


RULE = Rule(
    name="unknown-dtype",
    severity="wrong",
    operators=frozenset(),
    find=_find,
    hazard="MNN has no such dtype: the values are lost, or the net gives nothing",
    remedy="export in float32 (or quantize with mnnprep --weight-bits, which MNN reads)",
)
