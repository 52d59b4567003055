"""QuantizeLinear.

Measured with MNN 3.6.1: with a computed scale, or an output that is not int8 or uint8, a SIGSEGV; with
constants other numbers come out where its result is read.  Written out, the numbers are the same: the
rounding stays, only the operator goes.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from mnnprep.rules.editor import Editor
from mnnprep.rules.quantization.scales import RANGES, ROUND_IS_KNOWN, quantized, real, spread, spreadable
from mnnprep.rules.reading import Reading, known
from mnnprep.rules.rule import Place, Rewrite, Rule


def find(reading: Reading) -> Iterator[Place]:
    for node, opset in reading.nodes("QuantizeLinear"):
        dtype = _dtype(node, reading)
        axis, block = node.attributes.get_int("axis", 1), node.attributes.get_int("block_size", 0)
        able = (
            dtype in RANGES
            and opset >= ROUND_IS_KNOWN
            and spreadable(reading, node.inputs[0], node.inputs[1], axis, block)
        )
        yield Place(node=node, detail=f"to {dtype.lower()}", match=(dtype, axis, block), repairable=able)


def apply(editor: Editor, place: Place) -> bool:
    node = place.node
    dtype, axis, block = place.match
    dims = editor.reading.dims(node.inputs[0]) or ()
    zero = spread(editor, node, node.inputs[2], axis, block, dims) if len(node.inputs) > 2 else None
    scale = spread(editor, node, real(editor, node, node.inputs[1]), axis, block, dims)
    divided = editor.add(node, "Div", real(editor, node, node.inputs[0]), scale)
    editor.replace(node, quantized(editor, node, divided, zero, dtype))
    return True


def _dtype(node: Any, reading: Reading) -> str:
    if len(node.inputs) > 2 and node.inputs[2] is not None:
        return reading.dtype(node.inputs[2])
    given = node.attributes.get_int("output_dtype", 0)
    return known(given) if given else "UINT8"


RULE = Rule(
    name="quantize-linear",
    severity="crash",
    operators=frozenset({"QuantizeLinear"}),
    find=find,
    rewrite=Rewrite(apply=apply, exact=True),
    hazard=(
        "MNN crashes on a QuantizeLinear with a computed scale, and gives other numbers with a constant one"
    ),
    remedy="leave quantization to MNN: export in float and prepare with --weight-bits 8",
)
