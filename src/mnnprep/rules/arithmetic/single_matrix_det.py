"""Det of a single matrix.

Measured with MNN 3.6.1: wrong for two dimensions, right for a batch of matrices.

Up to three rows it is written out by its first row: numerically equal.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from mnnprep.rules.building import Builder
from mnnprep.rules.editor import Editor
from mnnprep.rules.reading import Reading
from mnnprep.rules.rule import Place, Rewrite, Rule


def find(reading: Reading) -> Iterator[Place]:
    for node, opset in reading.nodes("Det"):
        dims = reading.dims(node.inputs[0])
        if dims is not None and len(dims) == 2:
            size = dims[0] if isinstance(dims[0], int) else dims[1]
            yield Place(node=node, match=(opset, size), repairable=size in (1, 2, 3))


def apply(editor: Editor, place: Place) -> bool:
    node, (opset, size) = place.node, place.match
    build = Builder(editor, node, opset)
    flat = build.reshape(node.inputs[0], size * size)
    cells = [
        build.op("Gather", flat, build.constant(np.array(number)), axis=0) for number in range(size * size)
    ]
    build.replace(_determinant(build, [cells[row * size : row * size + size] for row in range(size)]))
    return True


def _determinant(build: Builder, rows: list[list[Any]]) -> Any:
    """By its first row."""
    if len(rows) == 1:
        return build.op("Identity", rows[0][0])
    total = None
    for column, cell in enumerate(rows[0]):
        smaller = [row[:column] + row[column + 1 :] for row in rows[1:]]
        part = build.op("Mul", cell, smaller[0][0] if len(smaller) == 1 else _determinant(build, smaller))
        total = part if total is None else build.op("Sub" if column % 2 else "Add", total, part)
    return total


RULE = Rule(
    name="det-of-a-matrix",
    severity="wrong",
    operators=frozenset({"Det"}),
    find=find,
    rewrite=Rewrite(apply=apply, exact=False),
    hazard="MNN computes the determinant of a single matrix wrongly",
    remedy="write it out",
)
