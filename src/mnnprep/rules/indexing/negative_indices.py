"""GatherElements and ScatterElements with negative indices that are constants.

Measured with MNN 3.6.1: they are not counted from the end. Gather, GatherND and Slice do it right.

They are counted from the start: the same bits.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from mnnprep.rules.editor import Editor
from mnnprep.rules.reading import Reading, tensor
from mnnprep.rules.rule import Place, Rewrite, Rule

OPS = ("GatherElements", "ScatterElements", "Scatter")


def find(reading: Reading) -> list[Place]:
    found = [(node, tensor(node.inputs[1])) for node, _ in reading.nodes(*OPS)]
    negative = [
        (node, indices.numpy())
        for node, indices in found
        if indices is not None and bool((indices.numpy() < 0).any())
    ]
    return [
        Place(node=node, match=(array, size := _size(node, reading)), repairable=isinstance(size, int))
        for node, array in negative
    ]


def _size(node: Any, reading: Reading) -> int | str | None:
    dims = reading.dims(node.inputs[0])
    return dims[node.attributes.get_int("axis", 0)] if dims is not None else None


def apply(editor: Editor, place: Place) -> bool:
    node, (indices, size) = place.node, place.match
    node.replace_input_with(1, editor.constant(node, np.where(indices < 0, indices + size, indices)))
    return True


RULE = Rule(
    name="negative-indices",
    severity="wrong",
    operators=frozenset(OPS),
    find=find,
    rewrite=Rewrite(apply=apply, exact=True),
    hazard="MNN does not count negative indices from the end in GatherElements and ScatterElements",
    remedy="make the indices non-negative",
)
