"""Building an ONNX graph with onnx-ir, one Caffe layer at a time."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from mnnprep.deps import require
from mnnprep.formats.caffe.caffemodel import Floats
from mnnprep.formats.caffe.net import Layer, Shape

Value = Any  # onnx_ir.Value, which this module imports only inside functions
Array = npt.NDArray[Any]


class Builder:
    """Collects nodes and initializers.

    Names are the layer's, numbered, so that the same net gives the same bytes.
    """

    def __init__(self) -> None:
        self._ir = require("onnx_ir")
        self.nodes: list[Any] = []
        self.initializers: dict[str, Value] = {}
        self._layer = ""
        self._count = 0

    def begin(self, layer: str) -> None:
        """Give to *layer* all that is added from here on."""
        self._layer, self._count = layer, 0

    def _name(self) -> str:
        self._count += 1
        return f"{self._layer}:{self._count}"

    def nodes_of(
        self, operator: str, inputs: Sequence[Value | None], outputs: int, **attributes: Any
    ) -> list[Value]:
        """Add a node; its output values."""
        name = self._name()
        values = [self._ir.Value(name=name if outputs == 1 else f"{name}.{i}") for i in range(outputs)]
        self.nodes.append(
            self._ir.node(operator, list(inputs), attributes or None, outputs=values, name=name)
        )
        return values

    def node(self, operator: str, *inputs: Value | None, **attributes: Any) -> Value:
        """Add a node with one output."""
        return self.nodes_of(operator, inputs, 1, **attributes)[0]

    def constant(self, array: Array, name: str = "") -> Value:
        """An initializer; *name* is that of a layer's blob, else it is numbered."""
        name = name or self._name()
        tensor = self._ir.Tensor(np.ascontiguousarray(array), name=name)
        value = self._ir.Value(
            name=name, type=self._ir.TensorType(tensor.dtype), shape=tensor.shape, const_value=tensor
        )
        self.initializers[name] = value
        return value

    def scalar(self, number: float) -> Value:
        """Add a float32 constant of rank 0."""
        return self.constant(np.array(number, np.float32))

    def integers(self, *numbers: int) -> Value:
        """Add an int64 constant of rank 1."""
        return self.constant(np.array(numbers, np.int64))


class Lowering:
    """The input of a rule: the layer, its bottoms with their shapes, its blobs, the builder that takes nodes.

    ``dynamic`` says that height or width is not fixed, so that no size but the batch's and the channels' may
    become a constant where ONNX can compute it.
    """

    def __init__(
        self,
        builder: Builder,
        layer: Layer,
        bottoms: list[Value],
        shapes: list[Shape],
        tops: list[Shape],
        blobs: list[Floats],
        *,
        dynamic: bool,
    ) -> None:
        self.add = builder
        self.layer = layer
        self.bottoms = bottoms
        self.shapes = shapes
        self.tops = tops
        self.blobs = blobs
        self.dynamic = dynamic

    @property
    def bottom(self) -> Value:
        """The layer's first bottom."""
        return self.bottoms[0]

    @property
    def shape(self) -> Shape:
        """The shape of the layer's first bottom."""
        return self.shapes[0]

    def blob(self, index: int, shape: Sequence[int] | None = None) -> Value:
        """The layer's blob *index* as an initializer, in another shape if given."""
        array = self.blobs[index]
        return self.add.constant(
            array if shape is None else array.reshape(shape), f"{self.layer.name}.{index}"
        )

    def affine(self, value: Value, scale: float, shift: float) -> Value:
        """Return ``value * scale + shift``, without a factor of 1 or a term of 0."""
        if scale != 1.0:
            value = self.add.node("Mul", value, self.add.scalar(scale))
        return value if shift == 0.0 else self.add.node("Add", value, self.add.scalar(shift))
