"""ConstantOfShape in the forms that MNN fills with whatever its memory held.

Measured with MNN 3.6.1 (with and without a poisoned heap):

* ``value`` missing: uninitialised memory, different at each conversion;
* the shape ``[]`` (a scalar): uninitialised memory for int32, int64 and bool, a crash or no output where the
  shape is computed or the scalar is an output;
* ``value`` of float16, int8 or uint8: wrong numbers, or a crash of the converter;
* ``value`` of float32, float64, int32, int64 or bool and a shape that is not ``[]``: right, and left alone.

A scalar becomes a Constant.  Else ``value`` is written out in float32 or int32, which hold it exactly, and
cast to the dtype it had; if they don't hold it, the node stays as it is.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from mnnprep.deps import require
from mnnprep.repair.rule import Match, Rewrite, Rule
from mnnprep.repair.support.editor import Editor
from mnnprep.repair.support.reading import Array, ModelView, tensor

if TYPE_CHECKING:
    import onnx_ir as ir

    from mnnprep.repair.support.reading import Operand

NAME = "constant-of-shape"
IN_FLOAT32 = ("FLOAT16",)
IN_INT32 = ("INT8", "UINT8", "INT16", "UINT16", "UINT32", "UINT64")


class Filling(NamedTuple):
    """Whether the shape is that of a scalar, the value as an array of one, and its dtype."""

    scalar: bool
    filler: Array
    dtype: ir.DataType


def _find(view: ModelView) -> list[Match[Filling]]:
    types = require("onnx_ir").DataType
    matches = []
    for node, _ in view.nodes("ConstantOfShape"):
        value = node.attributes.get_tensor("value", None)
        dtype: ir.DataType = types.FLOAT if value is None else value.dtype
        if not (dtype.is_floating_point() or dtype.is_integer() or dtype == types.BOOL):
            continue
        filler: Array = np.zeros(1, np.float32) if value is None else value.numpy().reshape(1)
        scalar = _is_scalar(node.inputs[0], view)
        narrow = dtype.name in IN_FLOAT32 or dtype.name in IN_INT32
        if not (scalar or value is None or narrow):
            continue
        held = scalar or dtype.name not in IN_INT32 or int(filler[0]) <= np.iinfo(np.int32).max
        detail = (
            "of the shape []"
            if scalar
            else "without value"
            if value is None
            else f"with a value of the dtype {dtype.name.lower()}"
        )
        matches.append(Match(at=node, detail=detail, found=Filling(scalar, filler, dtype), repairable=held))
    return matches


def _apply(editor: Editor, match: Match[Filling]) -> bool:
    node, tensor_of = match.node, require("onnx_ir").tensor
    scalar, filler, dtype = match.plan
    if scalar:
        new = editor.constant(node, filler.reshape(()))
    elif dtype.name in (*IN_FLOAT32, *IN_INT32):
        held = filler.astype(np.float32 if dtype.name in IN_FLOAT32 else np.int32)
        filled = editor.add(node, "ConstantOfShape", node.inputs[0], value=tensor_of(held))
        new = editor.add(node, "Cast", filled, to=int(dtype))
    else:
        new = editor.add(node, "ConstantOfShape", node.inputs[0], value=tensor_of(filler))
    editor.replace(node, new)
    return True


def _is_scalar(shape: Operand, view: ModelView) -> bool:
    """Whether what *shape* describes has no dimensions."""
    known = tensor(shape)
    return tuple(known.shape.numpy()) == (0,) if known is not None else view.dims(shape) == (0,)


RULE = Rule(
    name=NAME,
    hazard=(
        "MNN fills a ConstantOfShape without value, of shape [] or of a narrow dtype from uninitialised"
        " memory"
    ),
    severity="wrong",
    operators=frozenset({"ConstantOfShape"}),
    find=_find,
    rewrite=Rewrite(apply=_apply, exact=True, always=True),
    remedy="write the value out, in float32 or int32, and cast what was filled",
)
