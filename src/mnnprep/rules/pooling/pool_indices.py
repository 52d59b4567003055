"""MaxPool's indices in column-major order or with padding, MaxUnpool with an output shape.

Measured with MNN 3.6.1: ``storage_order`` is not read, padding gives values and indices that are not there,
and the third input of MaxUnpool is not read.

The windows are written out as strided slices, each with the index that it has in the tensor: the same values
and integers, but where a window holds a NaN.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from mnnprep.rules.building import FLOATS, PAD_INPUTS, Builder, asked, static
from mnnprep.rules.editor import Editor
from mnnprep.rules.pooling.windows import axes_of, cheap, highest
from mnnprep.rules.reading import Reading
from mnnprep.rules.rule import Place, Rewrite, Rule

OPS = ("MaxPool", "MaxUnpool")


def find(reading: Reading) -> Iterator[Place]:
    for node, opset in reading.nodes("MaxPool"):
        if asked(node, 1) and (reason := _reason(node)):
            yield _place(node, opset, reading, reason)
    for node, _ in reading.nodes("MaxUnpool"):
        if len(node.inputs) > 2 and node.inputs[2] is not None:
            yield Place(node=node, detail="an output shape", repairable=False)


def _reason(node: Any) -> str:
    if node.attributes.get_int("storage_order", 0):
        return "storage_order=1"
    padded = any(node.attributes.get_ints("pads", ())) or node.attributes.get_string(
        "auto_pad", "NOTSET"
    ).startswith("SAME")
    return "indices with padding" if padded else ""


def _place(node: Any, opset: int, reading: Reading, reason: str) -> Place:
    dims, dtype = static(reading.dims(node.inputs[0])), reading.dtype(node.inputs[0])
    axes = axes_of(node, dims)
    able = dims is not None and axes is not None and cheap(axes) and dtype in FLOATS and opset >= PAD_INPUTS
    return Place(node=node, detail=reason, match=(opset, dims, axes, dtype), repairable=able)


def apply(editor: Editor, place: Place) -> bool:
    node, (opset, dims, axes, dtype) = place.node, place.match
    build, sizes = Builder(editor, node, opset), dims[2:]
    volume = int(np.prod(sizes))
    columns = bool(node.attributes.get_int("storage_order", 0))
    index = build.constant(
        np.arange(volume, dtype=np.int32).reshape(sizes, order="F" if columns else "C")[None, None]
    )
    lowest = float(np.finfo(np.float16 if dtype == "FLOAT16" else np.float32).min)
    values, places = highest(build, axes, node.inputs[0], index, lowest, dtype)
    first = np.arange(dims[0] * dims[1], dtype=np.int32).reshape(dims[0], dims[1], *[1] * len(sizes)) * volume
    build.replace(values, build.cast(build.op("Add", places, build.constant(first)), "INT64"))
    return True


RULE = Rule(
    name="pool-indices",
    severity="wrong",
    operators=frozenset(OPS),
    find=find,
    rewrite=Rewrite(apply=apply, exact=True),
    hazard=(
        "MNN reads neither storage_order nor the padding of MaxPool's indices, nor the output shape of"
        " MaxUnpool"
    ),
    remedy="export with storage_order=0, without padding and without an output shape",
)
