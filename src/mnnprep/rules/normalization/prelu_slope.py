"""PRelu with a constant slope that is neither one number, nor one per channel, nor of the input's shape.

Measured with MNN 3.6.1: its numbers are taken as one per channel.

It is written with Max, Min and Mul: the same bits, but for the sign of a zero.
"""

from __future__ import annotations

from collections.abc import Iterator

from mnnprep.rules.building import FLOATS, Builder
from mnnprep.rules.editor import Editor
from mnnprep.rules.reading import Reading, stored
from mnnprep.rules.rule import Place, Rewrite, Rule


def find(reading: Reading) -> Iterator[Place]:
    for node, opset in reading.nodes("PRelu"):
        slope, rank = stored(node.inputs[1]), reading.rank(node.inputs[0])
        if slope is None or rank is None or opset < 7:  # before, a vector was one number per channel
            continue
        sizes = tuple(slope.shape.numpy())
        full = (1,) * (rank - len(sizes)) + sizes
        wide = [axis for axis, size in enumerate(full) if size != 1]
        if wide not in ([], [1]) and len(sizes) < rank:
            dtype = reading.dtype(node.inputs[0])
            yield Place(
                node=node,
                detail=f"slope of the shape {list(sizes)}",
                match=(opset, dtype),
                repairable=dtype in FLOATS,
            )


def apply(editor: Editor, place: Place) -> bool:
    node, (opset, dtype) = place.node, place.match
    build, (x, slope) = Builder(editor, node, opset), node.inputs
    zero = build.constant(0, dtype)
    build.replace(build.op("Add", build.op("Max", x, zero), build.op("Mul", build.op("Min", x, zero), slope)))
    return True


RULE = Rule(
    name="prelu-slope",
    severity="wrong",
    operators=frozenset({"PRelu"}),
    find=find,
    rewrite=Rewrite(apply=apply, exact=True),
    hazard="MNN takes the slope of PRelu as one number per channel, whatever axis it is for",
    remedy="write it as Where(x < 0, slope * x, x)",
)
