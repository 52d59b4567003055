"""Max-, Average- and LpPool written out by strided slices, which know every form of padding, dilation and
rounding.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from mnnprep.rules.building import FLOATS, SLICE_INPUTS, Builder, asked
from mnnprep.rules.editor import Editor
from mnnprep.rules.pooling.windows import axes_of, cheap, counted, pooled
from mnnprep.rules.reading import Reading
from mnnprep.rules.rule import Place


def place_of(node: Any, opset: int, reading: Reading, detail: str = "") -> Place:
    axes = axes_of(node, reading.dims(node.inputs[0]))
    dtype = reading.dtype(node.inputs[0]) or "FLOAT"
    able = (
        axes is not None and cheap(axes) and dtype in FLOATS and opset >= SLICE_INPUTS and not asked(node, 1)
    )
    if able and node.op_type == "AveragePool":
        able = counted(axes or [], padding=bool(node.attributes.get_int("count_include_pad", 0))) is not None
    return Place(node=node, detail=detail, match=(opset, axes, dtype), repairable=able)


def write_out(editor: Editor, place: Place) -> bool:
    node, (opset, axes, dtype) = place.node, place.match
    build, x = Builder(editor, node, opset), node.inputs[0]
    if node.op_type == "MaxPool":
        lowest = np.finfo(np.float16 if dtype == "FLOAT16" else np.float32).min
        build.replace(pooled(build, axes, x, "Max", float(lowest), dtype))
    elif node.op_type == "AveragePool":
        count = counted(axes, padding=bool(node.attributes.get_int("count_include_pad", 0)))
        build.replace(
            build.op("Div", pooled(build, axes, x, "Add", 0.0, dtype), build.constant(count, dtype))
        )
    else:
        build.replace(_norm(build, axes, x, node.attributes.get_int("p", 2), dtype))
    return True


def _norm(build: Builder, axes: Any, x: Any, p: int, dtype: str) -> Any:
    if p == 1:
        return pooled(build, axes, build.op("Abs", x), "Add", 0.0, dtype)
    if p == 2:
        return build.op("Sqrt", pooled(build, axes, build.op("Mul", x, x), "Add", 0.0, dtype))
    powers = build.op("Pow", build.op("Abs", x), build.constant(np.array(p), dtype))
    return build.op(
        "Pow", pooled(build, axes, powers, "Add", 0.0, dtype), build.constant(np.array(1 / p), dtype)
    )
