"""ScatterElements and ScatterND with a reduction.

Measured with MNN 3.6.1: it is not read: the updates overwrite.

Every place of the output is reduced with the updates that are meant for it, found by comparing indices:
numerically equal, and as many comparisons as places times updates.  A sum of slices is a product with the
matrix of what meets what.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from mnnprep.repair.rule import Match, Rewrite, Rule
from mnnprep.repair.support.building import FLOATS, Builder
from mnnprep.repair.support.editor import Editor
from mnnprep.repair.support.reading import ModelView
from mnnprep.repair.support.sizes import Sizes, counting, product, reshaped

if TYPE_CHECKING:
    import onnx_ir as ir

    from mnnprep.repair.support.reading import Dims, Operand
    from mnnprep.repair.support.sizes import Size

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
    """The dtypes of the data and of the indices, the sizes of both."""

    dtype: str
    kind: str
    data: Dims
    indices: Dims


def _find(view: ModelView) -> Iterator[Match[Scattered]]:
    for node, opset in view.nodes(*OPS):
        reduction = node.attributes.get_string("reduction", "none")
        if reduction == "none":
            continue
        found = _scattered(node, view) if reduction in REDUCED else None
        able = found is not None and _comparisons(node, found) <= MOST
        yield Match(at=node, opset=opset, found=found, repairable=able)


def _scattered(node: ir.Node, view: ModelView) -> Scattered | None:
    """What is known of *node*, if it can be written out.

    Of ScatterElements the axes must have the data's sizes in the indices, or known ones; of ScatterND the
    depth must be known.
    """
    data, indices = (view.dims(node.inputs[index]) for index in range(2))
    dtype, kind = view.dtype(node.inputs[0]), view.dtype(node.inputs[1])
    if not data or not indices or dtype not in FLOATS or not kind or 0 in (*data, *indices):
        return None
    if node.op_type == "ScatterND":
        fits = isinstance(indices[-1], int) and 0 < indices[-1] <= len(data)
    else:
        axis = node.attributes.get_int("axis", 0) % len(data)
        pairs = [pair for at, pair in enumerate(zip(data, indices, strict=True)) if at != axis]
        fits = all(
            (a == b and a is not None) or (isinstance(a, int) and isinstance(b, int)) for a, b in pairs
        )
    return Scattered(dtype, kind, data, indices) if fits else None


def _comparisons(node: ir.Node, found: Scattered) -> int:
    """How many places are compared, each open size taken as 1."""
    data, indices = ([size if isinstance(size, int) else 1 for size in dims] for dims in found[2:])
    if node.op_type == "ScatterElements":
        return math.prod(indices) * data[node.attributes.get_int("axis", 0)]
    depth = indices[-1]
    return math.prod(data[:depth]) * math.prod(indices[:-1]) * math.prod(data[depth:])


def _apply(editor: Editor, match: Match[Scattered]) -> bool:
    build = Builder(editor, match.node, match.opset)
    written = _elements if match.node.op_type == "ScatterElements" else _slices
    build.replace(written(build, match.plan))
    return True


def _counted(build: Builder, indices: Operand, size: Size, kind: str) -> ir.Value:
    """Indices from the start, if they are from the end."""
    below = build.op("Greater", build.constant(0, kind), indices)
    return build.op("Where", below, build.op("Add", indices, _typed(build, size, kind)), indices)


def _typed(build: Builder, size: Size, kind: str) -> ir.Value:
    """*size* as a number of the indices' dtype."""
    if isinstance(size, int):
        return build.constant(size, kind)
    return size if kind == "INT64" else build.cast(size, kind)


def _every(build: Builder, size: Size, kind: str, *shape: int) -> ir.Value:
    """The places below *size*, in this *shape*."""
    if isinstance(size, int):
        return build.constant(np.arange(size).reshape(shape), kind)
    places = counting(build, size)
    return build.reshape(places if kind == "INT64" else build.cast(places, kind), *shape)


def _met(build: Builder, hits: Operand, updates: Operand, axis: int, dtype: str) -> ir.Value:
    """The updates that meet each place, reduced over *axis*."""
    reduction = build.node.attributes.get_string("reduction", "none")
    met = build.op("Where", hits, updates, build.constant(np.array(NEUTRAL[reduction]), dtype))
    return build.reduce(REDUCED[reduction][0], met, (axis,), keep=False)


def _slices(build: Builder, found: Scattered) -> ir.Value:
    """ScatterND: (places, updates, the rest of each slice)."""
    dtype, kind, data, indices = found
    assert isinstance(indices[-1], int)  # else it is not repairable
    depth = indices[-1]
    x, raw, updates = build.node.inputs
    sizes = Sizes(build, x, len(data))
    places, rest = (product(build, sizes.among(*ends)) for ends in ((0, depth), (depth, len(data))))
    columns = build.reshape(raw, -1, depth)
    flat: Operand = None
    for axis in range(depth):
        column = _counted(build, build.slice(columns, 1, axis, axis + 1), sizes[axis], kind)
        behind = product(build, sizes.among(axis + 1, depth))
        part = column if behind == 1 else build.op("Mul", column, _typed(build, behind, kind))
        flat = part if flat is None else build.op("Add", flat, part)
    reduction = build.node.attributes.get_string("reduction", "none")
    table = reshaped(build, x, [places, rest])
    rows = reshaped(build, updates, [-1, rest])
    if reduction == "add" and dtype == "FLOAT":
        hits = build.op("Equal", build.reshape(flat, 1, -1), _every(build, places, kind, -1, 1))
        met = build.op("MatMul", build.cast(hits, dtype), rows)
    else:
        hits = build.op("Equal", build.reshape(flat, 1, -1, 1), _every(build, places, kind, -1, 1, 1))
        met = _met(build, hits, build.unsqueeze(rows, 0), 1, dtype)
    return reshaped(build, build.op(REDUCED[reduction][1], table, met), sizes.among(0, len(data)))


def _elements(build: Builder, found: Scattered) -> ir.Value:
    """ScatterElements: the axis becomes (places, updates)."""
    dtype, kind, data, indices = found
    axis = build.node.attributes.get_int("axis", 0) % len(data)
    x, raw, updates = build.node.inputs
    size = Sizes(build, x, len(data))[axis]
    wide = build.unsqueeze(_counted(build, raw, size, kind), axis)
    shape = [-1 if number == axis else 1 for number in range(len(data) + 1)]
    hits = build.op("Equal", wide, _every(build, size, kind, *shape))
    met = _met(build, hits, build.unsqueeze(updates, axis), axis + 1, dtype)
    spare = [
        size - part if number != axis and isinstance(size, int) and isinstance(part, int) else 0
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
