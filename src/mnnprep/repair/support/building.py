"""Writing new nodes in the form that the model's opset has for them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from mnnprep.deps import require
from mnnprep.repair.support.editor import Editor
from mnnprep.repair.support.opsets import ANY_CONSTANT, INPUTS_SINCE
from mnnprep.repair.support.reading import Array, Dims, ModelView

if TYPE_CHECKING:
    import onnx_ir as ir

    from mnnprep.repair.support.reading import AttributeValue, Operand

FLOATS = ("FLOAT", "FLOAT16", "DOUBLE", "BFLOAT16")
NARROW = ("INT8", "UINT8", "INT16", "UINT16")
TOO_FAR = np.iinfo(
    np.int32
).max  # an end that every axis is shorter than; int64's own is not one that MNN keeps


class Builder:
    """New nodes before *node*, valid in *opset*; every method returns the value that it computes."""

    def __init__(self, editor: Editor, node: ir.Node, opset: int) -> None:
        self.editor, self.node, self.opset = editor, node, opset

    def op(self, op_type: str, *inputs: Operand, **attributes: AttributeValue) -> ir.Value:
        """A node of a standard operator."""
        return self.editor.add(self.node, op_type, *inputs, **attributes)

    def constant(self, array: npt.ArrayLike, like: str = "") -> ir.Value:
        """A Constant; *like* is the ONNX name of the dtype it shall have, if it is not the array's own."""
        found = np.asarray(array)
        if like:
            found = found.astype(require("onnx_ir").DataType[like].numpy())
        if self.opset < ANY_CONSTANT and found.dtype.kind != "f":
            return self.cast(
                self.editor.constant(self.node, found.astype(np.float64)),
                require("onnx_ir").DataType.from_numpy(found.dtype).name,
            )
        return self.editor.constant(self.node, found)

    def ints(self, *values: int) -> ir.Value:
        """A one-dimensional int64 constant."""
        return self.constant(np.array(values, np.int64))

    def cast(self, value: Operand, to: str) -> ir.Value:
        """*value* cast to the dtype of the ONNX name *to*."""
        return self.op("Cast", value, to=int(require("onnx_ir").DataType[to]))

    def reshape(self, value: Operand, *sizes: int) -> ir.Value:
        """*value* in these *sizes*."""
        return (
            self.op("Reshape", value, self.ints(*sizes))
            if self.opset >= INPUTS_SINCE["Reshape"]
            else self.op("Reshape", value, shape=list(sizes))
        )

    def transpose(self, value: ir.Value, *order: int) -> ir.Value:
        """*value* with its axes in this *order*."""
        return value if list(order) == sorted(order) else self.op("Transpose", value, perm=list(order))

    def unsqueeze(self, value: Operand, *axes: int) -> ir.Value:
        """*value* with new *axes* of size 1."""
        return self._with_axes("Unsqueeze", value, axes)

    def squeeze(self, value: Operand, *axes: int) -> ir.Value:
        """*value* without these *axes*."""
        return self._with_axes("Squeeze", value, axes)

    def reduce(self, op_type: str, value: Operand, axes: Sequence[int] | None, *, keep: bool) -> ir.Value:
        """ReduceSum, ReduceMax ... over *axes*; over all if they are None."""
        if axes is None:
            return self.op(op_type, value, keepdims=int(keep))
        return self._with_axes(op_type, value, axes, keepdims=int(keep))

    def slice(self, value: Operand, axis: int, start: int, end: int = TOO_FAR, step: int = 1) -> ir.Value:
        """One axis from *start* to *end*; a *step* other than 1 needs opset 10."""
        if self.opset < INPUTS_SINCE["Slice"]:
            return self.op("Slice", value, axes=[axis], starts=[start], ends=[end])
        return self.op(
            "Slice",
            value,
            *(
                self.ints(number)
                for number in ((start, end, axis) if step == 1 else (start, end, axis, step))
            ),
        )

    def split(self, value: ir.Value, sizes: Sequence[int], axis: int) -> list[ir.Value]:
        """The parts of *value* along *axis*, of these *sizes*."""
        if len(sizes) == 1:
            return [value]
        parts = self.editor.fresh(self.node, len(sizes))
        if self.opset < INPUTS_SINCE["Split"]:
            self.editor.add_for(parts, self.node, "Split", value, axis=axis, split=list(sizes))
        else:
            self.editor.add_for(parts, self.node, "Split", value, self.ints(*sizes), axis=axis)
        return parts

    def backwards(self, value: Operand, axis: int, size: int | None) -> ir.Value:
        """Return *value* with the order along *axis* reversed.

        *size* is that of the axis, None if it is open (needs Range).

        By a Gather: a Slice with a step of -1 is wrong in MNN.
        """
        if size is not None:
            return self.op("Gather", value, self.ints(*range(size)[::-1]), axis=axis)
        zero, one = (self.constant(np.array(number, np.int64)) for number in (0, 1))
        length = self.op("Gather", self.op("Shape", value), self.constant(np.array(axis, np.int64)), axis=0)
        order = self.op("Sub", self.op("Sub", length, one), self.op("Range", zero, length, one))
        return self.op("Gather", value, order, axis=axis)

    def pad(
        self, value: Operand, before: Sequence[int], after: Sequence[int], fill: float, dtype: str = "FLOAT"
    ) -> ir.Value:
        """*value*, of the ONNX *dtype*, with *fill* around it."""
        pads = [*before, *after]
        if self.opset < INPUTS_SINCE["Pad"]:
            return self.op("Pad", value, pads=pads, value=float(fill))
        return self.op("Pad", value, self.ints(*pads), self.constant(np.array(fill), dtype))

    def replace(self, *values: Operand) -> None:
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

    def replace_only(self, value: ir.Value) -> None:
        """Let the new *value* take the place of the node's only output; the node goes."""
        self.editor.replace(self.node, value)

    def _fresh(self, value: ir.Value) -> ir.Value:
        producer = value.producer()
        fresh = (
            producer is not None
            and producer.name == value.name
            and not value.is_graph_output()
            and not value.uses()
        )
        return value if fresh else self.op("Identity", value)

    def _with_axes(
        self, op_type: str, value: Operand, axes: Sequence[int], **attributes: AttributeValue
    ) -> ir.Value:
        if self.opset < INPUTS_SINCE[op_type]:
            return self.op(op_type, value, axes=list(axes), **attributes)
        return self.op(op_type, value, self.ints(*axes), **attributes)


def asked(node: ir.Node, index: int) -> bool:
    """Whether anything uses the output *index* of *node*."""
    if len(node.outputs) <= index or not node.outputs[index].name:
        return False
    return bool(node.outputs[index].uses()) or node.outputs[index].is_graph_output()


def fed(node: ir.Node, index: int) -> ir.Value:
    """The input *index* of *node*, which it can't do without.

    Raises:
        ValueError: it is left out.
    """
    value = node.inputs[index]
    if value is None:
        raise ValueError(f"{node.op_type} {node.name} has no input {index}")
    return value


def attributes_of(node: ir.Node) -> dict[str, AttributeValue]:
    """The attributes of *node* as a new node takes them."""
    return {name: attribute.value for name, attribute in node.attributes.items()}


def given(node: ir.Node, index: int) -> Operand:
    """The input *index* of *node*, or None if it is left out."""
    return node.inputs[index] if len(node.inputs) > index else None


def numbers(array: Array) -> list[int]:
    """The numbers of an array of integers."""
    return [int(number) for number in array.reshape(-1)]


def static(dims: Dims | None) -> tuple[int, ...] | None:
    """*dims* where every one is a number."""
    sizes = tuple(size for size in dims or () if isinstance(size, int))
    return sizes if dims is not None and len(sizes) == len(dims) else None


def lacking(view: ModelView, *op_types: str) -> list[tuple[ir.Node, int]]:
    """Return the nodes of these operators that the converter at hand does not read.

    Each comes with its opset.
    """
    return view.nodes(
        *(op_type for op_type in op_types if view.supported is None or op_type not in view.supported)
    )
