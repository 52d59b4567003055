"""MaxPool over three dimensions.

Measured with MNN 3.6.1:

* ``pads`` missing: the converter crashes (SIGSEGV) where another operator uses the result, the runtime where
  none does;
* ``pads`` given: right with a batch of 1, with 2 or more wrong from the second element on (off by as much as
  the largest value).

The largest of a box is the largest along the depth of the largest of each of its slices, so the pool becomes
one over height and width, the slices taken as channels, and one over depth; both are in two dimensions, which
MNN computes rightly, and give the same bits.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from mnnprep.rules.editor import Editor
from mnnprep.rules.reading import Reading
from mnnprep.rules.rule import Place, Rewrite, Rule

SINCE = 10  # the opset from which Slice has its bounds as inputs


def find(reading: Reading) -> list[Place]:
    return [
        Place(node=node)
        for node, opset in reading.nodes("MaxPool")
        if opset >= SINCE and _is_separable(node) and _goes_wrong(node, reading)
    ]


def apply(editor: Editor, place: Place) -> bool:
    editor.replace(place.node, _split(editor, place.node))
    return True


def _goes_wrong(node: Any, reading: Reading) -> bool:
    """Whether the pads are missing, or the batch may be more than one."""
    dims = reading.dims(node.inputs[0])
    return "pads" not in node.attributes or dims is None or dims[0] != 1


def _is_separable(node: Any) -> bool:
    """Whether *node* pools three dimensions in the plain form: no indices, dilations or ceiling."""
    kernel = node.attributes.get_ints("kernel_shape", ())
    plain = all(d == 1 for d in node.attributes.get_ints("dilations", ())) and not node.attributes.get_int(
        "ceil_mode", 0
    )
    return len(kernel) == 3 and plain and len(node.outputs) == 1


def _split(editor: Editor, node: Any) -> Any:
    """The pool of *node* as one over height and width and one over depth; gives what takes its place."""
    value = node.inputs[0]
    slices = editor.add(node, "Reshape", value, _sizes(editor, node, (value, 0, 1), -1, (value, 3, 5)))
    flat = editor.add(node, "MaxPool", slices, **_attributes(node, (1, 2), 2))
    columns = editor.add(node, "Reshape", flat, _sizes(editor, node, (value, 0, 3), -1))
    deep = editor.add(node, "MaxPool", columns, **_attributes(node, (0,), 2))
    return editor.add(node, "Reshape", deep, _sizes(editor, node, (value, 0, 2), -1, (flat, 2, 4)))


def _sizes(editor: Editor, node: Any, *parts: Any) -> Any:
    """A shape of *parts*: -1, or a value and the first and last (exclusive) of its dimensions."""
    pieces = []
    for part in parts:
        if isinstance(part, int):
            pieces.append(editor.constant(node, np.array([part], np.int64)))
            continue
        value, first, last = part
        bounds = (editor.constant(node, np.array([bound], np.int64)) for bound in (first, last))
        pieces.append(editor.add(node, "Slice", editor.add(node, "Shape", value), *bounds))
    return editor.add(node, "Concat", *pieces, axis=0)


def _attributes(node: Any, axes: tuple[int, ...], rank: int) -> dict[str, Any]:
    """The attributes of *node* for some of its *axes*, made up to *rank* axes by ones that pool nothing."""
    given = node.attributes
    idle = rank - len(axes)
    kernel = given.get_ints("kernel_shape")
    strides, pads = given.get_ints("strides", (1, 1, 1)), given.get_ints("pads", (0,) * 6)
    chosen: dict[str, Any] = {
        "kernel_shape": [*(kernel[a] for a in axes), *[1] * idle],
        "strides": [*(strides[a] for a in axes), *[1] * idle],
    }
    automatic = given.get_string("auto_pad", "NOTSET")
    if automatic != "NOTSET":
        return chosen | {"auto_pad": automatic}
    return chosen | {
        "pads": [*(pads[a] for a in axes), *[0] * idle, *(pads[a + 3] for a in axes), *[0] * idle]
    }


RULE = Rule(
    name="max-pool-3d",
    hazard=(
        "MNN's converter crashes on a MaxPool over three dimensions without pads; with them its runtime is"
        " wrong from the second of a batch on"
    ),
    severity="crash",
    operators=frozenset({"MaxPool"}),
    find=find,
    rewrite=Rewrite(apply=apply, exact=True),
    remedy="pool over height and width first, then over depth, each in two dimensions",
)
