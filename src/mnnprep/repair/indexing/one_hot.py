"""OneHot.

Measured with MNN 3.6.1: a depth that is not an int32 or int64 is read as other bits (a loop without end at
run time); without ``axis`` the new axis is not the last.

The depth is cast to int64 and the axis written out; if the depth is constant, Equal and Where give the
same: the same bits.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from mnnprep.repair.rule import Match, Rewrite, Rule
from mnnprep.repair.support.building import FLOATS, Builder
from mnnprep.repair.support.editor import Editor
from mnnprep.repair.support.reading import ModelView, tensor

INTEGERS = ("INT32", "INT64", "")


def _find(view: ModelView) -> Iterator[Match[None]]:
    for node, opset in view.nodes("OneHot"):
        if view.dtype(node.inputs[1]) not in INTEGERS:
            yield Match(at=node, detail="the depth is not an integer", opset=opset)
        elif "axis" not in node.attributes:
            yield Match(at=node, detail="without axis", opset=opset)


def _apply(editor: Editor, match: Match[None]) -> bool:
    node = match.node
    build, (indices, depth, values) = Builder(editor, node, match.opset), node.inputs
    if editor.view.dtype(depth) not in INTEGERS:
        known = tensor(depth)
        depth = (
            build.constant(known.numpy().astype(np.int64))
            if known is not None
            else build.cast(depth, "INT64")
        )
    if editor.view.dtype(indices) in FLOATS:
        indices = build.cast(indices, "INT64")
    axis, rank, known = node.attributes.get_int("axis", -1), editor.view.rank(indices), tensor(depth)
    if known is None or rank is None or editor.view.dtype(values) not in (*FLOATS[:3], "INT32", "INT64"):
        build.replace(build.op("OneHot", indices, depth, values, axis=axis))
        return True
    size, new = int(known.numpy().reshape(-1)[0]), axis % (rank + 1)
    wide = build.unsqueeze(indices, new)
    every = np.arange(size).reshape([-1 if number == new else 1 for number in range(rank + 1)])
    kind = editor.view.dtype(indices) if editor.view.dtype(indices) == "INT32" else "INT64"
    hits = [build.op("Equal", wide, build.constant(every - back, kind)) for back in (0, size)]
    off, on = (build.op("Gather", values, build.constant(np.array(number)), axis=0) for number in (0, 1))
    build.replace(build.op("Where", build.op("Or", *hits), on, off))
    return True


RULE = Rule(
    name="one-hot",
    severity="wrong",
    operators=frozenset({"OneHot"}),
    find=_find,
    rewrite=Rewrite(apply=_apply, exact=True),
    hazard=("MNN misreads a OneHot depth that is not an integer, and does not apply the default axis"),
    remedy="give the depth as int64 and write the axis out",
)
