"""Tensors of less than 32 bits that the file keeps in ``int32_data``.

That is where ``onnx.helper.make_tensor`` puts booleans, and other tools int8 and float16. Measured with MNN
3.6.1: booleans and int8 are decoded wrongly, float16 is a SIGSEGV; the same in ``raw_data`` is right.  So
they are written there.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from mnnprep.deps import require
from mnnprep.repair.rule import Match, Rewrite, Rule
from mnnprep.repair.support.editor import Editor
from mnnprep.repair.support.reading import ModelView

if TYPE_CHECKING:
    import onnx_ir as ir

    from mnnprep.repair.support.reading import Stored

NARROW = ("BOOL", "INT8", "UINT8", "INT16", "UINT16", "FLOAT16")
EMPTY_TOO = ("FLOAT16",)  # a SIGSEGV where there is no data at all


def _find(view: ModelView) -> Iterator[Match[ir.Value]]:
    for graph in view.model.graphs():
        for value in graph.initializers.values():
            held = value.const_value
            if held is not None and value.uses() and _apart(held):
                yield Match(at=str(value.name), detail=held.dtype.name.lower(), found=value)
    for node, _ in view.nodes("Constant"):
        kept = node.attributes.get_tensor("value", None)
        if kept is not None and _apart(kept):
            yield Match(at=node, detail=kept.dtype.name.lower())


def _apply(editor: Editor, match: Match[ir.Value]) -> bool:
    if match.found is not None:
        if (held := match.found.const_value) is not None:
            match.found.const_value = _together(held)
        return True
    kept = match.node.attributes["value"].as_tensor()
    match.node.attributes["value"] = require("onnx_ir").AttrTensor("value", _together(kept))
    return True


def _together(held: Stored) -> Stored:
    """The same tensor with its values in raw_data."""
    made: Stored = require("onnx_ir").Tensor(held.numpy(), dtype=held.dtype, name=held.name)
    return made


def _apart(held: Stored) -> bool:
    """Whether the file keeps the values of a narrow tensor elsewhere than in raw_data."""
    proto, dtype = getattr(held, "_proto", None), held.dtype.name
    if proto is None or dtype not in NARROW:
        return False
    return len(proto.int32_data) > 0 or (dtype in EMPTY_TOO and not proto.raw_data)


RULE = Rule(
    name="int32-data",
    severity="wrong",
    operators=frozenset(),
    find=_find,
    rewrite=Rewrite(apply=_apply, exact=True),
    hazard=(
        "MNN decodes a tensor of less than 32 bits wrongly if the file keeps it in int32_data, or crashes"
    ),
    remedy="save the tensor in raw_data (onnx.numpy_helper.from_array does)",
)
