"""Max-, Average- and LpPool written out by strided slices.

They know every form of padding, dilation and rounding.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from mnnprep.repair.rule import Match
from mnnprep.repair.support.building import FLOATS, Builder, asked, fed
from mnnprep.repair.support.editor import Editor
from mnnprep.repair.support.opsets import INPUTS_SINCE
from mnnprep.repair.support.pool_windows import Axis, axes_of, cheap, counted, pooled
from mnnprep.repair.support.reading import ModelView

if TYPE_CHECKING:
    import onnx_ir as ir


@dataclass(frozen=True)
class Windows:
    """The pooled axes, and the dtype of the input."""

    axes: list[Axis]
    dtype: str


def match_of(node: ir.Node, opset: int, view: ModelView, detail: str = "") -> Match[Windows]:
    """The match of a pooling that is written out, if :func:`write_out` can."""
    axes = axes_of(node, view.dims(node.inputs[0]))
    dtype = view.dtype(node.inputs[0]) or "FLOAT"
    able = (
        axes is not None
        and cheap(axes)
        and dtype in FLOATS
        and opset >= INPUTS_SINCE["Slice"]
        and not asked(node, 1)
    )
    if able and node.op_type == "AveragePool":
        able = counted(axes or [], padding=bool(node.attributes.get_int("count_include_pad", 0))) is not None
    return Match(at=node, detail=detail, opset=opset, found=Windows(axes or [], dtype), repairable=able)


def write_out(editor: Editor, match: Match[Windows]) -> bool:
    """Let strided slices, combined axis by axis, take the place of the pooling."""
    node, opset, axes, dtype = match.node, match.opset, match.plan.axes, match.plan.dtype
    build, x = Builder(editor, node, opset), fed(node, 0)
    if node.op_type == "MaxPool":
        lowest = np.finfo(np.float16 if dtype == "FLOAT16" else np.float32).min
        build.replace(pooled(build, axes, x, "Max", float(lowest), dtype))
    elif node.op_type == "AveragePool":
        count = counted(axes, padding=bool(node.attributes.get_int("count_include_pad", 0)))
        assert count is not None  # else the match is not repairable
        build.replace(
            build.op("Div", pooled(build, axes, x, "Add", 0.0, dtype), build.constant(count, dtype))
        )
    else:
        build.replace(_norm(build, axes, x, node.attributes.get_int("p", 2), dtype))
    return True


def _norm(build: Builder, axes: list[Axis], x: ir.Value, p: int, dtype: str) -> ir.Value:
    if p == 1:
        return pooled(build, axes, build.op("Abs", x), "Add", 0.0, dtype)
    if p == 2:
        return build.op("Sqrt", pooled(build, axes, build.op("Mul", x, x), "Add", 0.0, dtype))
    powers = build.op("Pow", build.op("Abs", x), build.constant(np.array(p), dtype))
    return build.op(
        "Pow", pooled(build, axes, powers, "Add", 0.0, dtype), build.constant(np.array(1 / p), dtype)
    )
