"""Tensors of less than 32 bits that the file keeps in ``int32_data``.

That is where ``onnx.helper.make_tensor`` puts booleans, and other tools int8 and float16. Measured with MNN
3.6.1: booleans and int8 are decoded wrongly, float16 is a SIGSEGV; the same in ``raw_data`` is right.  So
they are written there.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from mnnprep.deps import require
from mnnprep.rules.editor import Editor
from mnnprep.rules.reading import Reading
from mnnprep.rules.rule import Place, Rewrite, Rule

NARROW = ("BOOL", "INT8", "UINT8", "INT16", "UINT16", "FLOAT16")
EMPTY_TOO = ("FLOAT16",)  # a SIGSEGV where there is no data at all


def find(reading: Reading) -> Iterator[Place]:
    for graph in reading.model.graphs():
        for value in graph.initializers.values():
            if value.uses() and _apart(value.const_value):
                yield Place(name=str(value.name), detail=value.const_value.dtype.name.lower(), match=value)
    for node, _ in reading.nodes("Constant"):
        held = node.attributes.get_tensor("value")
        if held is not None and _apart(held):
            yield Place(node=node, detail=held.dtype.name.lower())


def apply(editor: Editor, place: Place) -> bool:
    ir = require("onnx_ir")
    if place.node is None:
        held = place.match.const_value
        place.match.const_value = ir.Tensor(held.numpy(), dtype=held.dtype, name=held.name)
        return True
    held = place.node.attributes.get_tensor("value")
    place.node.attributes["value"] = ir.AttrTensor(
        "value", ir.Tensor(held.numpy(), dtype=held.dtype, name=held.name)
    )
    return True


def _apart(held: Any) -> bool:
    """Whether the file keeps the values of a narrow tensor elsewhere than in raw_data."""
    proto, dtype = getattr(held, "_proto", None), held.dtype.name if held is not None else ""
    if proto is None or dtype not in NARROW:
        return False
    return len(proto.int32_data) > 0 or (dtype in EMPTY_TOO and not proto.raw_data)


RULE = Rule(
    name="int32-data",
    severity="wrong",
    operators=frozenset(),
    find=find,
    rewrite=Rewrite(apply=apply, exact=True),
    hazard=(
        "MNN decodes a tensor of less than 32 bits wrongly where the file keeps it in int32_data, or crashes"
    ),
    remedy="save the tensor in raw_data (onnx.numpy_helper.from_array does)",
)
