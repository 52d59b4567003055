"""Cast to bool from a float, and to uint8.

Measured with MNN 3.6.1: a float below 1 becomes false; a Cast to uint8 is a SIGSEGV of the converter.

A comparison with 0 stands for the Cast to bool, and a table of the 8-bit integers for the one to uint8: the
same values, but for a float outside 0 to 255, which ONNX leaves open.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from mnnprep.rules.building import FLOATS, Builder
from mnnprep.rules.editor import Editor
from mnnprep.rules.reading import Reading, known, producer
from mnnprep.rules.rule import Place, Rewrite, Rule
from mnnprep.rules.types.narrow_integers import narrowed

REPAIRED = ("FLOAT", "FLOAT16", "DOUBLE", "INT8", "INT16", "INT32", "INT64", "BOOL", "UINT16", "UINT32")


def find(reading: Reading) -> Iterator[Place]:
    for node, opset in reading.nodes("Cast"):
        target = known(node.attributes.get_int("to", 1))
        if target == "UINT8":
            dtype = reading.dtype(node.inputs[0])
            yield Place(
                node=node,
                detail="to uint8",
                match=(opset, dtype, True),
                repairable=dtype in REPAIRED and opset >= 10,
            )
        elif (
            target == "BOOL"
            and reading.dtype(node.inputs[0]) in ("FLOAT", "FLOAT16", "DOUBLE", "BFLOAT16")
            and not _whole(node.inputs[0])
        ):
            dtype = reading.dtype(node.inputs[0])
            yield Place(
                node=node,
                detail="of a float to bool",
                match=(opset, dtype, False),
                repairable=dtype in FLOATS[:3] and opset >= 7,
            )


def _whole(value: Any) -> bool:
    """Whether *value* has no fraction: it was rounded, and at most changed its sign since."""
    while (node := producer(value, "Relu", "Abs", "Neg", "Identity", "Reshape")) is not None:
        value = node.inputs[0]
    return producer(value, "Ceil", "Floor", "Round", "Sign") is not None


def apply(editor: Editor, place: Place) -> bool:
    node, (opset, dtype, narrow) = place.node, place.match
    build, x = Builder(editor, node, opset), node.inputs[0]
    if narrow:
        build.replace(narrowed(build, x if dtype == "INT32" else build.cast(x, "INT32"), "UINT8"))
    else:
        build.replace(build.op("Greater", build.op("Abs", x), build.constant(0, dtype)))
    return True


RULE = Rule(
    name="cast-forms",
    severity="wrong",
    operators=frozenset({"Cast"}),
    find=find,
    rewrite=Rewrite(apply=apply, exact=True),
    hazard="MNN's Cast of a float to bool cuts off the fraction, and a Cast to uint8 crashes the converter",
    remedy="compare with 0 in place of a Cast to bool; cast to int32 in place of uint8",
)
