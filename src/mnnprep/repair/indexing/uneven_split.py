"""Split into ``num_outputs`` parts of which the last is smaller (opset 18).

Measured with MNN 3.6.1: the parts have the size of the smaller one.

Each part becomes a Slice: the same bits.
"""

from __future__ import annotations

from collections.abc import Iterator

from mnnprep.repair.rule import Match, Rewrite, Rule
from mnnprep.repair.support.building import Builder
from mnnprep.repair.support.editor import Editor
from mnnprep.repair.support.reading import ModelView


def _find(view: ModelView) -> Iterator[Match[tuple[int, int]]]:
    for node, opset in view.nodes("Split"):
        parts, dims = node.attributes.get_int("num_outputs", 0), view.dims(node.inputs[0])
        if not parts or (len(node.inputs) > 1 and node.inputs[1] is not None) or dims is None:
            continue
        size = dims[node.attributes.get_int("axis", 0)]
        if isinstance(size, int) and size % parts:
            yield Match(at=node, detail=f"{size} in {parts} parts", opset=opset, found=(size, parts))


def _apply(editor: Editor, match: Match[tuple[int, int]]) -> bool:
    node, opset, (size, parts) = match.node, match.opset, match.plan
    build, axis = Builder(editor, node, opset), node.attributes.get_int("axis", 0)
    each = -(-size // parts)
    bounds = [(number * each, min((number + 1) * each, size)) for number in range(parts)]
    build.replace(*(build.slice(node.inputs[0], axis, *pair) for pair in bounds))
    return True


RULE = Rule(
    name="uneven-split",
    severity="wrong",
    operators=frozenset({"Split"}),
    find=_find,
    rewrite=Rewrite(apply=_apply, exact=True),
    hazard="MNN's parts differ from ONNX's if num_outputs does not divide the axis",
    remedy="give the sizes of the parts",
)
