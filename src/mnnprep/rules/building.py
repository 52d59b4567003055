"""Writing new nodes in the form that the model's opset has for them.

Which opset gave an operator its axes, bounds or sizes as inputs is in ONNX's operator documents
(``docs/Changelog.md``).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from mnnprep.deps import require
from mnnprep.rules.editor import Editor
from mnnprep.rules.reading import Array, Reading

FLOATS = ("FLOAT", "FLOAT16", "DOUBLE", "BFLOAT16")
NARROW = ("INT8", "UINT8", "INT16", "UINT16")
ANY_CONSTANT = 9  # before, a Constant is of floats
SLICE_INPUTS = 10
PAD_INPUTS = 11
AXES_INPUTS = 13  # Squeeze, Unsqueeze, ReduceSum
REDUCE_INPUTS = 18  # the other reductions
TOO_FAR = np.iinfo(
    np.int32
).max  # an end that every axis is shorter than; int64's own is not one that MNN keeps


class Builder:
    """New nodes before *node*, valid in *opset*; every method returns the value that it computes."""

    def __init__(self, editor: Editor, node: Any, opset: int) -> None:
        self.editor, self.node, self.opset = editor, node, opset

    def op(self, op_type: str, *inputs: Any, **attributes: Any) -> Any:
        return self.editor.add(self.node, op_type, *inputs, **attributes)

    def constant(self, array: Any, like: str = "") -> Any:
        """A Constant; *like* is the ONNX name of the dtype it shall have, where it is not the array's own."""
        found = np.asarray(array)
        if like:
            found = found.astype(require("onnx_ir").DataType[like].numpy())
        if self.opset < ANY_CONSTANT and found.dtype.kind != "f":
            return self.cast(
                self.editor.constant(self.node, found.astype(np.float64)),
                require("onnx_ir").DataType.from_numpy(found.dtype).name,
            )
        return self.editor.constant(self.node, found)

    def ints(self, *values: int) -> Any:
        return self.constant(np.array(values, np.int64))

    def cast(self, value: Any, to: str) -> Any:
        return self.op("Cast", value, to=int(require("onnx_ir").DataType[to]))

    def reshape(self, value: Any, *sizes: int) -> Any:
        return (
            self.op("Reshape", value, self.ints(*sizes))
            if self.opset >= 5
            else self.op("Reshape", value, shape=list(sizes))
        )

    def transpose(self, value: Any, *order: int) -> Any:
        return value if list(order) == sorted(order) else self.op("Transpose", value, perm=list(order))

    def unsqueeze(self, value: Any, *axes: int) -> Any:
        return self._with_axes("Unsqueeze", value, axes, AXES_INPUTS)

    def squeeze(self, value: Any, *axes: int) -> Any:
        return self._with_axes("Squeeze", value, axes, AXES_INPUTS)

    def reduce(self, op_type: str, value: Any, axes: Sequence[int] | None, *, keep: bool) -> Any:
        """ReduceSum, ReduceMax ... over *axes*; over all where they are None."""
        since = AXES_INPUTS if op_type == "ReduceSum" else REDUCE_INPUTS
        if axes is None:
            return self.op(op_type, value, keepdims=int(keep))
        return self._with_axes(op_type, value, axes, since, keepdims=int(keep))

    def slice(self, value: Any, axis: int, start: int, end: int = TOO_FAR, step: int = 1) -> Any:
        """One axis from *start* to *end*; a *step* other than 1 needs opset 10."""
        if self.opset < SLICE_INPUTS:
            return self.op("Slice", value, axes=[axis], starts=[start], ends=[end])
        return self.op(
            "Slice",
            value,
            *(
                self.ints(number)
                for number in ((start, end, axis) if step == 1 else (start, end, axis, step))
            ),
        )

    def pad(
        self, value: Any, before: Sequence[int], after: Sequence[int], fill: float, dtype: str = "FLOAT"
    ) -> Any:
        """*value*, of the ONNX *dtype*, with *fill* around it."""
        pads = [*before, *after]
        if self.opset < PAD_INPUTS:
            return self.op("Pad", value, pads=pads, value=float(fill))
        return self.op("Pad", value, self.ints(*pads), self.constant(np.array(fill), dtype))

    def replace(self, *values: Any) -> None:
        """Let *values* take the places of the node's outputs; None: that output is not asked for.

        A value that is not one of the new ones goes through an Identity, so that it keeps its own name.
        """
        old = list(self.node.outputs)
        new = [None if v is None else self._fresh(v) for v in values]
        names = [(o.name, o.shape, o.dtype) for o in old]
        for output, value in zip(old, new, strict=False):
            if value is not None:
                output.replace_all_uses_with(value, replace_graph_outputs=True)
        self.editor.discard(old[0])
        for value, (name, shape, dtype) in zip(new, names, strict=False):
            if value is not None and name:
                value.name, value.shape = name, value.shape if shape is None else shape
                if dtype is not None:
                    value.dtype = dtype

    def _fresh(self, value: Any) -> Any:
        producer = value.producer()
        fresh = (
            producer is not None
            and producer.name == value.name
            and not value.is_graph_output()
            and not value.uses()
        )
        return value if fresh else self.op("Identity", value)

    def _with_axes(self, op_type: str, value: Any, axes: Sequence[int], since: int, **attributes: Any) -> Any:
        if self.opset < since:
            return self.op(op_type, value, axes=list(axes), **attributes)
        return self.op(op_type, value, self.ints(*axes), **attributes)


def asked(node: Any, index: int) -> bool:
    """Whether anything uses the output *index* of *node*."""
    if len(node.outputs) <= index or not node.outputs[index].name:
        return False
    return bool(node.outputs[index].uses()) or node.outputs[index].is_graph_output()


def given(node: Any, index: int) -> Any:
    """The input *index* of *node*, or None where it is left out."""
    return node.inputs[index] if len(node.inputs) > index else None


def numbers(array: Array) -> list[int]:
    return [int(number) for number in array.reshape(-1)]


def static(dims: Any) -> tuple[int, ...] | None:
    """*dims* where every one is a number."""
    return tuple(dims) if dims is not None and all(isinstance(size, int) for size in dims) else None


def lacking(reading: Reading, *op_types: str) -> list[tuple[Any, int]]:
    """The nodes of these operators, each with its opset, but for those that the converter at hand says it
    reads.
    """
    return reading.nodes(
        *(op_type for op_type in op_types if reading.supported is None or op_type not in reading.supported)
    )
