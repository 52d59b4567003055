"""ArgMax and ArgMin with select_last_index=1.

Measured with MNN 3.6.1: the first of equal values is given.

The axis is reversed by a Gather, where its size is fixed, and the index counted from the end.  The same
integers.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from mnnprep.rules.building import Builder
from mnnprep.rules.editor import Editor
from mnnprep.rules.reading import Reading
from mnnprep.rules.rule import Place, Rewrite, Rule

OPS = ("ArgMax", "ArgMin")


def find(reading: Reading) -> list[Place]:
    return [
        _place(node, opset, reading)
        for node, opset in reading.nodes(*OPS)
        if node.attributes.get_int("select_last_index", 0)
    ]


def _place(node: Any, opset: int, reading: Reading) -> Place:
    dims, axis = reading.dims(node.inputs[0]), node.attributes.get_int("axis", 0)
    size = dims[axis] if dims is not None else None
    return Place(node=node, match=(opset, axis, size), repairable=isinstance(size, int))


def apply(editor: Editor, place: Place) -> bool:
    node, (opset, axis, size) = place.node, place.match
    build = Builder(editor, node, opset)
    reversed_x = build.op("Gather", node.inputs[0], build.constant(np.arange(size - 1, -1, -1)), axis=axis)
    index = build.op(node.op_type, reversed_x, axis=axis, keepdims=node.attributes.get_int("keepdims", 1))
    build.replace(build.op("Sub", build.constant(np.array(size - 1)), index))
    return True


RULE = Rule(
    name="select-last-index",
    severity="wrong",
    operators=frozenset(OPS),
    find=find,
    rewrite=Rewrite(apply=apply, exact=True),
    hazard="MNN gives the first of equal values in ArgMax and ArgMin with select_last_index=1",
    remedy="reverse the axis before, and count the index from its end",
)
