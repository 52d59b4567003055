"""Cast to bool from a number, and to uint8.

Measured with MNN 3.6.1: a float below 1 becomes false; an integer stays the number that it is, which an
output gives, and Not, And, Or and Xor compute with (Where takes it rightly); a Cast to uint8 is a SIGSEGV of
the converter.

A comparison with 0 stands for the Cast to bool, and a table of the 8-bit integers for the one to uint8: the
same values, but for a float outside 0 to 255, which ONNX leaves open.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, NamedTuple

from mnnprep.repair.rule import Match, Rewrite, Rule
from mnnprep.repair.support.building import FLOATS, Builder
from mnnprep.repair.support.editor import Editor
from mnnprep.repair.support.opsets import BROADCASTING, SINCE
from mnnprep.repair.support.reading import ModelView, known, producer
from mnnprep.repair.types.narrow_integer_arithmetic import narrowed

if TYPE_CHECKING:
    import onnx_ir as ir

    from mnnprep.repair.support.reading import Operand

REPAIRED = ("FLOAT", "FLOAT16", "DOUBLE", "INT8", "INT16", "INT32", "INT64", "BOOL", "UINT16", "UINT32")

INTEGERS = ("INT8", "UINT8", "INT16", "UINT16", "INT32", "INT64")


class Cast(NamedTuple):
    """The dtype that is cast, and whether it is cast to uint8 (else to bool)."""

    dtype: str
    narrow: bool


def _find(view: ModelView) -> Iterator[Match[Cast]]:
    for node, opset in view.nodes("Cast"):
        target = known(node.attributes.get_int("to", 1))
        if target == "UINT8":
            dtype = view.dtype(node.inputs[0])
            yield Match(
                at=node,
                detail="to uint8",
                opset=opset,
                found=Cast(dtype, True),
                repairable=dtype in REPAIRED and opset >= SINCE["Mod"],
            )
        elif target == "BOOL" and (match := _to_bool(node, opset, view)) is not None:
            yield match


def _to_bool(node: ir.Node, opset: int, view: ModelView) -> Match[Cast] | None:
    """The match of a Cast to bool; None if MNN gets it right."""
    x, dtype = node.inputs[0], view.dtype(node.inputs[0])
    able = opset >= BROADCASTING
    if dtype in FLOATS and not _whole(x):
        detail, able = "of a float to bool", able and dtype != "BFLOAT16"
    elif dtype in INTEGERS and not _decides_alone(node):
        detail = "of an integer to bool"
    else:
        return None
    return Match(at=node, detail=detail, opset=opset, found=Cast(dtype, False), repairable=able)


def _decides_alone(node: ir.Node) -> bool:
    """Whether the truth of what *node* gives is all that is used: as the condition of Where."""
    result = node.outputs[0]
    uses = result.uses()
    return not result.is_graph_output() and all(use.node.op_type == "Where" and use.idx == 0 for use in uses)


def _whole(value: Operand) -> bool:
    """Whether *value* has no fraction: it was rounded, and at most changed its sign since."""
    while (node := producer(value, "Relu", "Abs", "Neg", "Identity", "Reshape")) is not None:
        value = node.inputs[0]
    return producer(value, "Ceil", "Floor", "Round", "Sign") is not None


def _apply(editor: Editor, match: Match[Cast]) -> bool:
    node, opset, (dtype, narrow) = match.node, match.opset, match.plan
    build, x = Builder(editor, node, opset), node.inputs[0]
    if narrow:
        build.replace(narrowed(build, x if dtype == "INT32" else build.cast(x, "INT32"), "UINT8"))
    elif dtype in FLOATS:
        build.replace(build.op("Greater", build.op("Abs", x), build.constant(0, dtype)))
    else:
        whole = x if dtype in ("INT32", "INT64") else build.cast(x, "INT32")
        zero = build.constant(0, dtype if whole is x else "INT32")
        build.replace(build.op("Not", build.op("Equal", whole, zero)))
    return True


RULE = Rule(
    name="cast-forms",
    severity="wrong",
    operators=frozenset({"Cast"}),
    find=_find,
    rewrite=Rewrite(apply=_apply, exact=True),
    hazard=(
        "MNN's Cast to bool cuts off the fraction of a float and keeps an integer's number, and a Cast to"
        " uint8 crashes the converter"
    ),
    remedy="compare with 0 instead of a Cast to bool; cast to int32 instead of uint8",
)
