"""PRelu with a constant slope that is neither one number, nor one per channel, nor of the input's shape.

Measured with MNN 3.6.1: its numbers are taken as one per channel.

It is written with Max, Min and Mul: the same bits, but for the sign of a zero.
"""

from __future__ import annotations

from collections.abc import Iterator

from mnnprep.repair.rule import Match, Rewrite, Rule
from mnnprep.repair.support.building import FLOATS, Builder
from mnnprep.repair.support.editor import Editor
from mnnprep.repair.support.opsets import BROADCASTING
from mnnprep.repair.support.reading import ModelView, stored


def _find(view: ModelView) -> Iterator[Match[str]]:
    for node, opset in view.nodes("PRelu"):
        slope, rank = stored(node.inputs[1]), view.rank(node.inputs[0])
        if (
            slope is None or rank is None or opset < BROADCASTING
        ):  # before, a vector was one number per channel
            continue
        sizes = tuple(slope.shape.numpy())
        full = (1,) * (rank - len(sizes)) + sizes
        wide = [axis for axis, size in enumerate(full) if size != 1]
        if wide not in ([], [1]) and len(sizes) < rank:
            dtype = view.dtype(node.inputs[0])
            yield Match(
                at=node,
                detail=f"slope of the shape {list(sizes)}",
                opset=opset,
                found=dtype,
                repairable=dtype in FLOATS,
            )


def _apply(editor: Editor, match: Match[str]) -> bool:
    node, opset, dtype = match.node, match.opset, match.plan
    build, (x, slope) = Builder(editor, node, opset), node.inputs
    zero = build.constant(0, dtype)
    build.replace(build.op("Add", build.op("Max", x, zero), build.op("Mul", build.op("Min", x, zero), slope)))
    return True


RULE = Rule(
    name="prelu-slope",
    severity="wrong",
    operators=frozenset({"PRelu"}),
    find=_find,
    rewrite=Rewrite(apply=_apply, exact=True),
    hazard="MNN takes the slope of PRelu as one number per channel, whatever axis it is for",
    remedy="write it as Where(x < 0, slope * x, x)",
)
