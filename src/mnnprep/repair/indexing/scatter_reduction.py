"""ScatterElements and ScatterND with a reduction.

Measured with MNN 3.6.1: it is not read: the updates overwrite.

Every place of the output is reduced with the updates that are meant for it, found by comparing indices:
numerically equal, and as many comparisons as places times updates.  Sizes must be fixed.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from mnnprep.repair.rule import Match, Rewrite, Rule
from mnnprep.repair.support.building import FLOATS, Builder, static
from mnnprep.repair.support.editor import Editor
from mnnprep.repair.support.reading import ModelView

if TYPE_CHECKING:
    import onnx_ir as ir

    from mnnprep.repair.support.reading import Operand

OPS = ("ScatterElements", "ScatterND")
MOST = 1 << 22  # comparisons
NEUTRAL = {"add": 0.0, "mul": 1.0, "max": -np.inf, "min": np.inf}
REDUCED = {
    "add": ("ReduceSum", "Add"),
    "mul": ("ReduceProd", "Mul"),
    "max": ("ReduceMax", "Max"),
    "min": ("ReduceMin", "Min"),
}


class Scattered(NamedTuple):
    """The dtypes of the data and of the indices, and the sizes of all three."""

    dtype: str
    kind: str
    data: tuple[int, ...]
    indices: tuple[int, ...]
    updates: tuple[int, ...]


def _find(view: ModelView) -> Iterator[Match[Scattered]]:
    for node, opset in view.nodes(*OPS):
        reduction = node.attributes.get_string("reduction", "none")
        if reduction == "none":
            continue
        found = _scattered(node, view) if reduction in REDUCED else None
        able = found is not None and 0 < _comparisons(node, found) <= MOST
        yield Match(at=node, opset=opset, found=found, repairable=able)


def _scattered(node: ir.Node, view: ModelView) -> Scattered | None:
    data, indices, updates = (static(view.dims(node.inputs[index])) for index in range(3))
    dtype, kind = view.dtype(node.inputs[0]), view.dtype(node.inputs[1])
    if data is None or indices is None or updates is None or dtype not in FLOATS or not kind:
        return None
    return Scattered(dtype, kind, data, indices, updates)


def _comparisons(node: ir.Node, found: Scattered) -> int:
    data, indices, updates = found[2:]
    if node.op_type == "ScatterElements":
        return int(np.prod(updates)) * int(data[node.attributes.get_int("axis", 0)])
    depth = indices[-1]
    return int(np.prod(data[:depth]) * np.prod(indices[:-1]) * np.prod(data[depth:]))


def _apply(editor: Editor, match: Match[Scattered]) -> bool:
    build = Builder(editor, match.node, match.opset)
    written = _elements if match.node.op_type == "ScatterElements" else _slices
    build.replace(written(build, match.plan))
    return True


def _counted(build: Builder, indices: Operand, size: int, kind: str) -> ir.Value:
    """Indices from the start, if they are from the end."""
    below = build.op("Greater", build.constant(0, kind), indices)
    return build.op("Where", below, build.op("Add", indices, build.constant(size, kind)), indices)


def _met(build: Builder, hits: Operand, updates: Operand, axis: int, dtype: str) -> ir.Value:
    """The updates that meet each place, reduced over *axis*."""
    reduction = build.node.attributes.get_string("reduction", "none")
    met = build.op("Where", hits, updates, build.constant(np.array(NEUTRAL[reduction]), dtype))
    return build.reduce(REDUCED[reduction][0], met, (axis,), keep=False)


def _slices(build: Builder, found: Scattered) -> ir.Value:
    """ScatterND: (places, updates, the rest of each slice)."""
    dtype, kind, data, indices, _ = found
    depth, count = indices[-1], int(np.prod(indices[:-1]))
    places, rest = int(np.prod(data[:depth])), int(np.prod(data[depth:]))
    x, raw, updates = build.node.inputs
    columns = build.reshape(raw, count, depth)
    flat: Operand = None
    for axis in range(depth):
        column = _counted(build, build.slice(columns, 1, axis, axis + 1), data[axis], kind)
        part = build.op("Mul", column, build.constant(int(np.prod(data[axis + 1 : depth])), kind))
        flat = part if flat is None else build.op("Add", flat, part)
    hits = build.op(
        "Equal", build.reshape(flat, 1, count, 1), build.constant(np.arange(places).reshape(-1, 1, 1), kind)
    )
    met = _met(build, hits, build.reshape(updates, 1, count, rest), 1, dtype)
    combine = REDUCED[build.node.attributes.get_string("reduction", "none")][1]
    return build.reshape(build.op(combine, build.reshape(x, places, rest), met), *data)


def _elements(build: Builder, found: Scattered) -> ir.Value:
    """ScatterElements: the axis becomes (places, updates)."""
    dtype, kind, data, indices, _ = found
    axis = build.node.attributes.get_int("axis", 0) % len(data)
    x, raw, updates = build.node.inputs
    wide = build.unsqueeze(_counted(build, raw, data[axis], kind), axis)
    every = np.arange(data[axis]).reshape([-1 if number == axis else 1 for number in range(len(data) + 1)])
    hits = build.op("Equal", wide, build.constant(every, kind))
    met = _met(build, hits, build.unsqueeze(updates, axis), axis + 1, dtype)
    spare = [
        size - part if number != axis else 0
        for number, (size, part) in enumerate(zip(data, indices, strict=True))
    ]
    reduction = build.node.attributes.get_string("reduction", "none")
    if any(spare):
        met = build.pad(met, [0] * len(data), spare, NEUTRAL[reduction], dtype)
    return build.op(REDUCED[reduction][1], x, met)


RULE = Rule(
    name="scatter-reduction",
    severity="wrong",
    operators=frozenset(OPS),
    find=_find,
    rewrite=Rewrite(apply=_apply, exact=False),
    hazard="MNN overwrites values instead of applying a Scatter's reduction",
    remedy="scatter into zeros by a product with a one-hot matrix, or leave the reduction to the app",
)
