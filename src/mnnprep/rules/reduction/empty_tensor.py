"""Reductions of a tensor with a dimension of size 0.

Measured with MNN 3.6.1: ReduceMax and ReduceMin are a SIGSEGV at run time.

ReduceSum, which is right there, gives the shape and zeros; what the largest of nothing is in the dtype is
added.  The same bits.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from mnnprep.rules.building import FLOATS, REDUCE_INPUTS, Builder, given
from mnnprep.rules.editor import Editor
from mnnprep.rules.reading import Reading
from mnnprep.rules.rule import Place, Rewrite, Rule

OPS = ("ReduceMax", "ReduceMin")
REPAIRED = (*FLOATS[:3], "INT32", "INT64", "BOOL")


def find(reading: Reading) -> list[Place]:
    found = [
        (node, opset) for node, opset in reading.nodes(*OPS) if 0 in (reading.dims(node.inputs[0]) or ())
    ]
    return [_place(node, opset, reading) for node, opset in found]


def _place(node: Any, opset: int, reading: Reading) -> Place:
    dtype = reading.dtype(node.inputs[0])
    return Place(
        node=node,
        match=(opset, dtype),
        repairable=dtype in REPAIRED and opset >= REDUCE_INPUTS and _simple(node, reading),
    )


def _simple(node: Any, reading: Reading) -> bool:
    """Whether the axes are left out, or surely not none."""
    axes = given(node, 1)
    size = (reading.dims(axes) or (0,))[0] if axes is not None else 1
    return isinstance(size, int) and size > 0


def apply(editor: Editor, place: Place) -> bool:
    node, (opset, dtype) = place.node, place.match
    build = Builder(editor, node, opset)
    x, sign = node.inputs[0], 1 if node.op_type == "ReduceMin" else -1
    axes = [given(node, 1)] if given(node, 1) is not None else []
    total = build.op(
        "ReduceSum",
        build.cast(x, "INT32") if dtype == "BOOL" else x,
        *axes,
        keepdims=node.attributes.get_int("keepdims", 1),
    )
    if dtype == "BOOL":
        build.replace(
            build.cast(total if sign < 0 else build.op("Add", total, build.constant(1, "INT32")), "BOOL")
        )
        return True
    whole = np.iinfo(np.int32 if dtype == "INT32" else np.int64)
    nothing = sign * np.inf if dtype in FLOATS else whole.max if sign > 0 else whole.min
    build.replace(build.op("Add", total, build.constant(np.array(nothing), dtype)))
    return True


RULE = Rule(
    name="reduce-nothing",
    severity="crash",
    operators=frozenset(OPS),
    find=find,
    rewrite=Rewrite(apply=apply, exact=True),
    hazard="MNN crashes in ReduceMax and ReduceMin of a tensor of size 0",
    remedy="avoid dimensions of size 0",
)
