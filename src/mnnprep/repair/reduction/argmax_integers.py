"""ArgMax and ArgMin of integers.

Measured with MNN 3.6.1: their bits are compared as if they were float32's: right among positive ones, the
other way round among negative ones; 8-bit integers are read as other numbers.

Integers of 16 bits and fewer are cast to float32, which holds each. Wider ones are compared with their
largest or smallest (which MNN finds rightly), and the place of the first that equals it is taken. The same
integers.
"""

from __future__ import annotations

from mnnprep.repair.rule import Match, Rewrite, Rule
from mnnprep.repair.support.building import Builder, attributes_of, fed
from mnnprep.repair.support.editor import Editor
from mnnprep.repair.support.opsets import SINCE
from mnnprep.repair.support.reading import ModelView

OPS = ("ArgMax", "ArgMin")
WIDE = ("INT32", "INT64")
INTEGERS = (*WIDE, "INT8", "UINT8", "INT16", "UINT16")


def _find(view: ModelView) -> list[Match[str]]:
    found = [(node, opset, view.dtype(node.inputs[0])) for node, opset in view.nodes(*OPS)]
    return [
        Match(at=node, opset=opset, found=dtype, repairable=opset >= SINCE["Expand"])
        for node, opset, dtype in found
        if dtype in INTEGERS
    ]


def _apply(editor: Editor, match: Match[str]) -> bool:
    node, dtype = match.node, match.plan
    build, x = Builder(editor, node, match.opset), fed(node, 0)
    attributes = attributes_of(node)
    if dtype not in WIDE:
        build.replace_only(build.op(node.op_type, build.cast(x, "FLOAT"), **attributes))
        return True
    axis, kind = node.attributes.get_int("axis", 0), node.op_type.removeprefix("Arg")
    found = build.op("Equal", x, build.reduce(f"Reduce{kind}", x, [axis], keep=True))
    build.replace_only(build.op("ArgMax", build.cast(found, "FLOAT"), **attributes))
    return True


RULE = Rule(
    name="argmax-integers",
    severity="wrong",
    operators=frozenset(OPS),
    find=_find,
    rewrite=Rewrite(apply=_apply, exact=True),
    hazard="MNN compares the bits of integers as if they were float32's in ArgMax and ArgMin",
    remedy="cast them to float32 before",
)
