"""Det of a single matrix.

Measured with MNN 3.6.1: wrong for two dimensions, right for a batch of matrices.

Up to three rows it is written out by its first row: numerically equal.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np

from mnnprep.repair.rule import Match, Rewrite, Rule
from mnnprep.repair.support.building import Builder
from mnnprep.repair.support.editor import Editor
from mnnprep.repair.support.reading import ModelView

if TYPE_CHECKING:
    import onnx_ir as ir


def _find(view: ModelView) -> Iterator[Match[int]]:
    for node, opset in view.nodes("Det"):
        dims = view.dims(node.inputs[0])
        if dims is not None and len(dims) == 2:
            size = dims[0] if isinstance(dims[0], int) else dims[1]
            known = size if isinstance(size, int) else None
            yield Match(at=node, opset=opset, found=known, repairable=known in (1, 2, 3))


def _apply(editor: Editor, match: Match[int]) -> bool:
    node, opset, size = match.node, match.opset, match.plan
    build = Builder(editor, node, opset)
    flat = build.reshape(node.inputs[0], size * size)
    cells = [
        build.op("Gather", flat, build.constant(np.array(number)), axis=0) for number in range(size * size)
    ]
    build.replace(_determinant(build, [cells[row * size : row * size + size] for row in range(size)]))
    return True


def _determinant(build: Builder, rows: list[list[ir.Value]]) -> ir.Value:
    """By its first row."""
    if len(rows) == 1:
        return build.op("Identity", rows[0][0])
    parts: list[ir.Value] = []
    for column, cell in enumerate(rows[0]):
        smaller = [row[:column] + row[column + 1 :] for row in rows[1:]]
        part = build.op("Mul", cell, smaller[0][0] if len(smaller) == 1 else _determinant(build, smaller))
        parts.append(part if not parts else build.op("Sub" if column % 2 else "Add", parts[-1], part))
    return parts[-1]


RULE = Rule(
    name="det-of-a-matrix",
    severity="wrong",
    operators=frozenset({"Det"}),
    find=_find,
    rewrite=Rewrite(apply=_apply, exact=False),
    hazard="MNN computes the determinant of a single matrix wrongly",
    remedy="write it out",
)
