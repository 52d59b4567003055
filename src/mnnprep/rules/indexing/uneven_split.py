"""Split into ``num_outputs`` parts of which the last is smaller (opset 18).

Measured with MNN 3.6.1: the parts have the size of the smaller one.

Each part becomes a Slice: the same bits.
"""

from __future__ import annotations

from collections.abc import Iterator

from mnnprep.rules.building import Builder
from mnnprep.rules.editor import Editor
from mnnprep.rules.reading import Reading
from mnnprep.rules.rule import Place, Rewrite, Rule


def find(reading: Reading) -> Iterator[Place]:
    for node, opset in reading.nodes("Split"):
        parts, dims = node.attributes.get_int("num_outputs", 0), reading.dims(node.inputs[0])
        if not parts or (len(node.inputs) > 1 and node.inputs[1] is not None) or dims is None:
            continue
        size = dims[node.attributes.get_int("axis", 0)]
        if isinstance(size, int) and size % parts:
            yield Place(node=node, detail=f"{size} in {parts} parts", match=(opset, size, parts))


def apply(editor: Editor, place: Place) -> bool:
    node, (opset, size, parts) = place.node, place.match
    build, axis = Builder(editor, node, opset), node.attributes.get_int("axis", 0)
    each = -(-size // parts)
    bounds = [(number * each, min((number + 1) * each, size)) for number in range(parts)]
    build.replace(*(build.slice(node.inputs[0], axis, *pair) for pair in bounds))
    return True


RULE = Rule(
    name="uneven-split",
    severity="wrong",
    operators=frozenset({"Split"}),
    find=find,
    rewrite=Rewrite(apply=apply, exact=True),
    hazard="MNN splits unevenly where num_outputs does not divide the axis",
    remedy="give the sizes of the parts",
)
