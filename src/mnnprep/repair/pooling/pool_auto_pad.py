"""Pooling with auto_pad SAME_LOWER, and LpPool that is not padded evenly.

Measured with MNN 3.6.1: SAME_LOWER is padded as SAME_UPPER, and LpPool is always padded evenly.  With pads
written out the others are right, and the same bits come out; an LpPool is written out as strided slices:
numerically equal.
"""

from __future__ import annotations

from collections.abc import Iterator

from mnnprep.deps import require
from mnnprep.repair.rule import Match, Rewrite, Rule
from mnnprep.repair.support.editor import Editor
from mnnprep.repair.support.pool_windows import axes_of
from mnnprep.repair.support.pool_written_out import Windows, match_of, write_out
from mnnprep.repair.support.reading import ModelView

OPS = ("MaxPool", "AveragePool", "LpPool")


def _find(view: ModelView) -> Iterator[Match[Windows]]:
    for node, opset in view.nodes(*OPS):
        auto = node.attributes.get_string("auto_pad", "NOTSET")
        axes = axes_of(node, view.dims(node.inputs[0]))
        if node.op_type == "LpPool":
            if any(axis.before != axis.after for axis in axes or ()) or (
                axes is None and auto.startswith("SAME")
            ):
                yield match_of(node, opset, view, auto)
        elif auto == "SAME_LOWER":
            yield Match(
                at=node,
                detail=auto,
                found=None if axes is None else Windows(axes, ""),
                repairable=axes is not None,
            )


def _apply(editor: Editor, match: Match[Windows]) -> bool:
    if match.node.op_type == "LpPool":
        return write_out(editor, match)
    attributes, axes = match.node.attributes, match.plan.axes
    attributes.add(
        require("onnx_ir").AttrInt64s(
            "pads", [*(axis.before for axis in axes), *(axis.after for axis in axes)]
        )
    )
    attributes.add(require("onnx_ir").AttrString("auto_pad", "NOTSET"))
    return True


RULE = Rule(
    name="pool-auto-pad",
    severity="wrong",
    operators=frozenset(OPS),
    find=_find,
    rewrite=Rewrite(apply=_apply, exact=False),
    hazard="MNN pads a pooling with auto_pad SAME_LOWER and an uneven LpPool at the opposite ends",
    remedy="write the pads out",
)
