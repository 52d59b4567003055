"""MaxPool's indices in column-major order or with padding, MaxUnpool with an output shape.

Measured with MNN 3.6.1: ``storage_order`` is not read, padding gives values and indices that are not there,
and the third input of MaxUnpool is not read.

The windows are written out as strided slices, each with the index that it has in the tensor: the same values
and integers, but if a window holds a NaN.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from mnnprep.repair.rule import Match, Rewrite, Rule
from mnnprep.repair.support.building import FLOATS, Builder, asked, fed, static
from mnnprep.repair.support.editor import Editor
from mnnprep.repair.support.opsets import INPUTS_SINCE
from mnnprep.repair.support.pool_windows import Axis, axes_of, cheap, highest
from mnnprep.repair.support.reading import ModelView

if TYPE_CHECKING:
    import onnx_ir as ir

OPS = ("MaxPool", "MaxUnpool")


class Indexed(NamedTuple):
    """The sizes of the input, its pooled axes, and its dtype."""

    dims: tuple[int, ...]
    axes: list[Axis]
    dtype: str


def _find(view: ModelView) -> Iterator[Match[Indexed]]:
    for node, opset in view.nodes("MaxPool"):
        if asked(node, 1) and (reason := _reason(node)):
            yield _match_of(node, opset, view, reason)
    for node, _ in view.nodes("MaxUnpool"):
        if len(node.inputs) > 2 and node.inputs[2] is not None:
            yield Match(at=node, detail="an output shape", repairable=False)


def _reason(node: ir.Node) -> str:
    if node.attributes.get_int("storage_order", 0):
        return "storage_order=1"
    padded = any(node.attributes.get_ints("pads", ())) or node.attributes.get_string(
        "auto_pad", "NOTSET"
    ).startswith("SAME")
    return "indices with padding" if padded else ""


def _match_of(node: ir.Node, opset: int, view: ModelView, reason: str) -> Match[Indexed]:
    dims, dtype = static(view.dims(node.inputs[0])), view.dtype(node.inputs[0])
    axes = axes_of(node, dims)
    if dims is None or axes is None or not cheap(axes) or dtype not in FLOATS or opset < INPUTS_SINCE["Pad"]:
        return Match(at=node, detail=reason, repairable=False)
    return Match(at=node, detail=reason, opset=opset, found=Indexed(dims, axes, dtype))


def _apply(editor: Editor, match: Match[Indexed]) -> bool:
    node, opset, (dims, axes, dtype) = match.node, match.opset, match.plan
    build, sizes = Builder(editor, node, opset), dims[2:]
    volume = int(np.prod(sizes))
    columns = bool(node.attributes.get_int("storage_order", 0))
    index = build.constant(
        np.arange(volume, dtype=np.int32).reshape(sizes, order="F" if columns else "C")[None, None]
    )
    lowest = float(np.finfo(np.float16 if dtype == "FLOAT16" else np.float32).min)
    values, places = highest(build, axes, fed(node, 0), index, lowest, dtype)
    first = np.arange(dims[0] * dims[1], dtype=np.int32).reshape(dims[0], dims[1], *[1] * len(sizes)) * volume
    build.replace(values, build.cast(build.op("Add", places, build.constant(first)), "INT64"))
    return True


RULE = Rule(
    name="pool-indices",
    severity="wrong",
    operators=frozenset(OPS),
    find=_find,
    rewrite=Rewrite(apply=_apply, exact=True),
    hazard=(
        "MNN reads neither storage_order nor the padding of MaxPool's indices, nor the output shape of"
        " MaxUnpool"
    ),
    remedy="export with storage_order=0, without padding and without an output shape",
)
