"""DequantizeLinear.

Measured with MNN 3.6.1: with one scale per axis or block the shape is wrong, with 16-bit integers or a computed scale the numbers are, an int8
weight of a MatMul is wrong too; one constant scale for an 8-bit input is right.
"""

from __future__ import annotations

from collections.abc import Iterator

from mnnprep.rules.reading import Reading, tensor
from mnnprep.rules.rule import Place, Rule


def find(reading: Reading) -> Iterator[Place]:
    for node, _ in reading.nodes("DequantizeLinear"):
        scale = tensor(node.inputs[1])
        if reading.dtype(node.inputs[0]) not in ("INT8", "UINT8", "INT32", "") and not reading.dtype(node.inputs[0]).startswith("FLOAT"):
            yield Place(node=node, detail=reading.dtype(node.inputs[0]).lower())
        elif tensor(node.inputs[0]) is not None:
            yield Place(node=node, detail="of a weight")
        elif scale is None and reading.dtype(node.inputs[0]) in ("INT8", "UINT8"):
            yield Place(node=node, detail="a computed scale")
        elif scale is not None and scale.size > 1:
            yield Place(node=node, detail="a scale per axis or block")


RULE = Rule(
    name="dequantize-linear", severity="wrong", operators=frozenset({"DequantizeLinear"}), find=find,
    hazard="MNN's DequantizeLinear is right for one constant scale of an 8-bit input only",
    remedy="leave quantization to MNN: export in float and prepare with --weight-bits 8",
)  # fmt: skip
