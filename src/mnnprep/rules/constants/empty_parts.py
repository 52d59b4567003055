"""Parts of size 0 that a Split gives and a Concat takes.

Measured with MNN 3.6.1: a Split with a size of 0 among its sizes gives whatever its memory held (the whole
net where the other
part is all there is: a RotaryEmbedding that rotates every element ends so).  A Concat is right without the
part.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from mnnprep.rules.editor import Editor
from mnnprep.rules.forms import split_into
from mnnprep.rules.reading import Reading, tensor
from mnnprep.rules.rule import Place, Rewrite, Rule

NAME = "empty-parts"


def find(reading: Reading) -> Iterator[Place]:
    for node, opset in reading.nodes("Split"):
        sizes = _sizes(node, opset)
        if sizes is not None and 0 in sizes and len(sizes) == len(node.outputs):
            unneeded = all(
                _only_joined(value) for value, size in zip(node.outputs, sizes, strict=True) if size == 0
            )
            yield Place(node=node, detail="a part of size 0", match=sizes, repairable=unneeded and any(sizes))


def apply(editor: Editor, place: Place) -> bool:
    node = place.node
    kept = [value for value, size in zip(node.outputs, place.match, strict=True) if size]
    sizes = [size for size in place.match if size]
    if len(kept) == 1:
        parts = [editor.add(node, "Identity", node.inputs[0])]
    else:
        parts = split_into(
            editor,
            node,
            node.inputs[0],
            sizes,
            node.attributes.get_int("axis", 0),
            13 if len(node.inputs) > 1 else 1,
        )
    _take_outputs(editor, node, kept, parts)
    return True


def _take_outputs(editor: Editor, node: Any, kept: list[Any], parts: list[Any]) -> None:
    for value in node.outputs:
        if value not in kept:
            for use in list(value.uses()):
                left = [v for v in use.node.inputs if v is not value]
                _without(editor, use.node, left)
    editor.replace_outputs(node, dict(zip(kept, parts, strict=True)))


def _without(editor: Editor, concat: Any, left: list[Any]) -> None:
    axis = concat.attributes["axis"].value
    editor.replace(
        concat,
        editor.add(concat, "Concat", *left, axis=axis)
        if len(left) > 1
        else editor.add(concat, "Identity", *left),
    )


def _only_joined(value: Any) -> bool:
    return not value.is_graph_output() and all(
        use.node.op_type == "Concat" and any(other is not value for other in use.node.inputs)
        for use in value.uses()
    )


def _sizes(node: Any, opset: int) -> list[int] | None:
    if opset < 13:
        given = node.attributes.get_ints("split", None)
        return list(given) if given is not None else None
    held = tensor(node.inputs[1]) if len(node.inputs) > 1 and node.inputs[1] is not None else None
    return [int(n) for n in held.numpy().reshape(-1)] if held is not None else None


RULE = Rule(
    name=NAME,
    severity="wrong",
    operators=frozenset({"Split"}),
    find=find,
    rewrite=Rewrite(apply=apply, exact=True),
    hazard="MNN gives uninitialised memory for every part of a Split that has a part of size 0",
    remedy="leave the empty part out of the Split",
)
