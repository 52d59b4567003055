"""Parts of size 0 that a Split gives and a Concat takes.

Measured with MNN 3.6.1: a Split with a size of 0 among its sizes gives whatever its memory held (the whole
net where the other
part is all there is: a RotaryEmbedding that rotates every element ends so).  A Concat is right without the
part.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from mnnprep.repair.rule import Match, Rewrite, Rule
from mnnprep.repair.support.building import Builder, fed
from mnnprep.repair.support.editor import Editor
from mnnprep.repair.support.opsets import INPUTS_SINCE
from mnnprep.repair.support.reading import ModelView, tensor

if TYPE_CHECKING:
    import onnx_ir as ir

    from mnnprep.repair.support.reading import Operand

NAME = "empty-parts"


def _find(view: ModelView) -> Iterator[Match[list[int]]]:
    for node, opset in view.nodes("Split"):
        sizes = _sizes(node, opset)
        if sizes is not None and 0 in sizes and len(sizes) == len(node.outputs):
            unneeded = all(
                _only_joined(value) for value, size in zip(node.outputs, sizes, strict=True) if size == 0
            )
            yield Match(
                at=node,
                detail="a part of size 0",
                opset=opset,
                found=sizes,
                repairable=unneeded and any(sizes),
            )


def _apply(editor: Editor, match: Match[list[int]]) -> bool:
    node = match.node
    kept = [value for value, size in zip(node.outputs, match.plan, strict=True) if size]
    sizes = [size for size in match.plan if size]
    if len(kept) == 1:
        parts = [editor.add(node, "Identity", node.inputs[0])]
    else:
        build = Builder(editor, node, match.opset)
        parts = build.split(fed(node, 0), sizes, node.attributes.get_int("axis", 0))
    _take_outputs(editor, node, kept, parts)
    return True


def _take_outputs(editor: Editor, node: ir.Node, kept: list[ir.Value], parts: list[ir.Value]) -> None:
    for value in node.outputs:
        if value not in kept:
            for use in list(value.uses()):
                left = [v for v in use.node.inputs if v is not value]
                _without(editor, use.node, left)
    editor.replace_outputs(node, dict(zip(kept, parts, strict=True)))


def _without(editor: Editor, concat: ir.Node, left: list[Operand]) -> None:
    axis = concat.attributes["axis"].value
    editor.replace(
        concat,
        editor.add(concat, "Concat", *left, axis=axis)
        if len(left) > 1
        else editor.add(concat, "Identity", *left),
    )


def _only_joined(value: ir.Value) -> bool:
    return not value.is_graph_output() and all(
        use.node.op_type == "Concat" and any(other is not value for other in use.node.inputs)
        for use in value.uses()
    )


def _sizes(node: ir.Node, opset: int) -> list[int] | None:
    if opset < INPUTS_SINCE["Split"]:
        given = node.attributes.get_ints("split", None)
        return list(given) if given is not None else None
    held = tensor(node.inputs[1]) if len(node.inputs) > 1 and node.inputs[1] is not None else None
    return [int(n) for n in held.numpy().reshape(-1)] if held is not None else None


RULE = Rule(
    name=NAME,
    severity="wrong",
    operators=frozenset({"Split"}),
    find=_find,
    rewrite=Rewrite(apply=_apply, exact=True),
    hazard="MNN gives uninitialised memory for every part of a Split that has a part of size 0",
    remedy="leave the empty part out of the Split",
)
