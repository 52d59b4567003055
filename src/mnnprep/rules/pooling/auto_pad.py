"""Pooling with auto_pad SAME_LOWER, and LpPool that is not padded evenly.

Measured with MNN 3.6.1: SAME_LOWER is padded as SAME_UPPER, and LpPool is always padded evenly.  With pads
written out the others are right, and the same bits come out; an LpPool is written out as strided slices:
numerically equal.
"""

from __future__ import annotations

from collections.abc import Iterator

from mnnprep.deps import require
from mnnprep.rules.editor import Editor
from mnnprep.rules.pooling.windows import axes_of
from mnnprep.rules.pooling.written_out import place_of, write_out
from mnnprep.rules.reading import Reading
from mnnprep.rules.rule import Place, Rewrite, Rule

OPS = ("MaxPool", "AveragePool", "LpPool")


def find(reading: Reading) -> Iterator[Place]:
    for node, opset in reading.nodes(*OPS):
        auto = node.attributes.get_string("auto_pad", "NOTSET")
        axes = axes_of(node, reading.dims(node.inputs[0]))
        if node.op_type == "LpPool":
            if any(axis.before != axis.after for axis in axes or ()) or (
                axes is None and auto.startswith("SAME")
            ):
                yield place_of(node, opset, reading, auto)
        elif auto == "SAME_LOWER":
            yield Place(node=node, detail=auto, match=axes, repairable=axes is not None)


def apply(editor: Editor, place: Place) -> bool:
    if place.node.op_type == "LpPool":
        return write_out(editor, place)
    attributes, axes = place.node.attributes, place.match
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
    find=find,
    rewrite=Rewrite(apply=apply, exact=False),
    hazard="MNN pads a pooling with auto_pad SAME_LOWER and an uneven LpPool at other ends",
    remedy="write the pads out",
)
