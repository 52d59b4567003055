"""MaxPool over three dimensions.

Measured with MNN 3.6.1:

* ``pads`` missing: the converter crashes (SIGSEGV) where another operator uses the result, the runtime if
  none does;
* ``pads`` given: right with a batch of 1, with 2 or more wrong from the second element on (off by as much as
  the largest value).

The largest of a box is the largest along the depth of the largest of each of its slices, so the pool becomes
one over height and width, the slices taken as channels, and one over depth; both are in two dimensions, which
MNN computes rightly, and give the same bits.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeAlias

import numpy as np

from mnnprep.repair.rule import Match, Rewrite, Rule
from mnnprep.repair.support.editor import Editor
from mnnprep.repair.support.opsets import INPUTS_SINCE
from mnnprep.repair.support.reading import ModelView

if TYPE_CHECKING:
    import onnx_ir as ir

    from mnnprep.repair.support.reading import AttributeValue, Operand

    Part: TypeAlias = int | tuple[Operand, int, int]


def _find(view: ModelView) -> list[Match[None]]:
    return [
        Match(at=node)
        for node, opset in view.nodes("MaxPool")
        if opset >= INPUTS_SINCE["Slice"] and _is_separable(node) and _goes_wrong(node, view)
    ]


def _apply(editor: Editor, match: Match[None]) -> bool:
    editor.replace(match.node, _split(editor, match.node))
    return True


def _goes_wrong(node: ir.Node, view: ModelView) -> bool:
    """Whether the pads are missing, or the batch may be more than one."""
    dims = view.dims(node.inputs[0])
    return "pads" not in node.attributes or dims is None or dims[0] != 1


def _is_separable(node: ir.Node) -> bool:
    """Whether *node* pools three dimensions in the plain form: no indices, dilations or ceiling."""
    kernel = node.attributes.get_ints("kernel_shape", ())
    plain = all(d == 1 for d in node.attributes.get_ints("dilations", ())) and not node.attributes.get_int(
        "ceil_mode", 0
    )
    return len(kernel) == 3 and plain and len(node.outputs) == 1


def _split(editor: Editor, node: ir.Node) -> ir.Value:
    """The pool of *node* as one over height and width and one over depth; gives what takes its place."""
    value = node.inputs[0]
    slices = editor.add(node, "Reshape", value, _sizes(editor, node, (value, 0, 1), -1, (value, 3, 5)))
    flat = editor.add(node, "MaxPool", slices, **_attributes(node, (1, 2), 2))
    columns = editor.add(node, "Reshape", flat, _sizes(editor, node, (value, 0, 3), -1))
    deep = editor.add(node, "MaxPool", columns, **_attributes(node, (0,), 2))
    return editor.add(node, "Reshape", deep, _sizes(editor, node, (value, 0, 2), -1, (flat, 2, 4)))


def _sizes(editor: Editor, node: ir.Node, *parts: Part) -> ir.Value:
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


def _attributes(node: ir.Node, axes: tuple[int, ...], rank: int) -> dict[str, AttributeValue]:
    """The attributes of *node* for some of its *axes*, made up to *rank* axes by ones that pool nothing."""
    given = node.attributes
    idle = rank - len(axes)
    kernel = given.get_ints("kernel_shape")
    strides, pads = given.get_ints("strides", (1, 1, 1)), given.get_ints("pads", (0,) * 6)
    chosen: dict[str, AttributeValue] = {
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
        "MNN's converter crashes on a MaxPool over three dimensions without pads; with pads its runtime is"
        " wrong from the second batch element on"
    ),
    severity="crash",
    operators=frozenset({"MaxPool"}),
    find=_find,
    rewrite=Rewrite(apply=_apply, exact=True),
    remedy="pool over height and width first, then over depth, each in two dimensions",
)
