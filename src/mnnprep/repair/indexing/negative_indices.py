"""GatherElements and ScatterElements with negative indices that are constants.

Measured with MNN 3.6.1: they are not counted from the end. Gather, GatherND and Slice do it right.

They are counted from the start: the same bits.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from mnnprep.repair.rule import Match, Rewrite, Rule
from mnnprep.repair.support.editor import Editor
from mnnprep.repair.support.reading import Array, ModelView, tensor

if TYPE_CHECKING:
    import onnx_ir as ir

OPS = ("GatherElements", "ScatterElements", "Scatter")


def _find(view: ModelView) -> list[Match[tuple[Array, int]]]:
    found = [(node, tensor(node.inputs[1])) for node, _ in view.nodes(*OPS)]
    negative = [
        (node, indices.numpy())
        for node, indices in found
        if indices is not None and bool((indices.numpy() < 0).any())
    ]
    sized = [(node, array, _size(node, view)) for node, array in negative]
    return [
        Match(at=node, found=None if size is None else (array, size), repairable=size is not None)
        for node, array, size in sized
    ]


def _size(node: ir.Node, view: ModelView) -> int | None:
    """The size of the axis, if it is fixed."""
    dims = view.dims(node.inputs[0])
    size = dims[node.attributes.get_int("axis", 0)] if dims is not None else None
    return size if isinstance(size, int) else None


def _apply(editor: Editor, match: Match[tuple[Array, int]]) -> bool:
    node, (indices, size) = match.node, match.plan
    node.replace_input_with(1, editor.constant(node, np.where(indices < 0, indices + size, indices)))
    return True


RULE = Rule(
    name="negative-indices",
    severity="wrong",
    operators=frozenset(OPS),
    find=_find,
    rewrite=Rewrite(apply=_apply, exact=True),
    hazard="MNN does not count negative indices from the end in GatherElements and ScatterElements",
    remedy="make the indices non-negative",
)
