"""TFLite's quantization, written out in float32 in the ONNX form: every rounding stays.

A quantized tensor holds ``clip(round(real / scale) + zero_point)`` (TFLite's quantization specification).  In
the ONNX form it holds the same integers as float32 numbers, which are exact, and is cast where it leaves the
net.  So its numbers are those of TFLite's kernels but for a step where the sum of products, which float32
rounds, lies on the border of two steps.  Ties are rounded away from zero, as TFLite's kernels do.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    from tf2onnx.graph import Graph as TensorGraph
    from tf2onnx.graph import Node as TensorNode

Array = npt.NDArray[Any]
# ops whose integer kernels average the stored numbers and round them without their zero point
AVERAGING = frozenset({"AveragePool", "Resize", "Upsample"})
MOVING = frozenset({"Transpose", "Reshape", "Squeeze", "Unsqueeze", "Identity"})


def quantize(graph: TensorGraph, node: TensorNode, _name: str, _arguments: list[Any]) -> None:
    """Write out a TFL_QUANTIZE; its output has the stored integers, of their own dtype."""
    output, write = node.output[0], _Writer(graph, node)
    stored = _numpy(graph, output)
    scale, zero = write.along("scale"), write.along("zero_point")
    limits = np.iinfo(stored)
    real = write.op("Div", node.input[0], write.number(scale))
    point = write.number(zero)
    if _averages(node):
        whole = write.rounded(write.op("Add", real, point))
    else:
        whole = write.op("Add", write.rounded(real), point)
    low, high = (write.number(np.float32(end)) for end in (limits.min, limits.max))
    integers = write.op("Min", write.op("Max", whole, low), high)
    graph.remove_node(node.name)
    graph.make_node(
        "Cast",
        [integers],
        attr={"to": _onnx(stored)},
        outputs=[output],
        shapes=[write.shape],
        dtypes=[_onnx(stored)],
    )


def dequantize(graph: TensorGraph, node: TensorNode, _name: str, _arguments: list[Any]) -> None:
    """Write out a TFL_DEQUANTIZE: of a constant the float32 numbers that it stands for."""
    write = _Writer(graph, node)
    if "scale" not in node.attr:  # of half floats
        value = write.cast(node.input[0])
    elif node.inputs[0].is_const():
        stored = node.inputs[0].get_tensor_value(as_list=False).astype(np.int64)
        zero = write.along("zero_point").astype(np.int64)
        value = write.number((stored - zero).astype(np.float32) * write.along("scale"))
    else:
        shifted = write.op("Sub", write.cast(node.input[0]), write.number(write.along("zero_point")))
        value = write.op("Mul", shifted, write.number(write.along("scale")))
    graph.replace_all_inputs(node.output[0], value)
    graph.remove_node(node.name)


def hard_swish(graph: TensorGraph, node: TensorNode, _name: str, _arguments: list[Any]) -> None:
    """Write out HARD_SWISH, which ONNX has since opset 14: x clip(x + 3, 0, 6) / 6."""
    write, x = _Writer(graph, node), node.input[0]
    shifted = write.op("Add", x, write.number(3.0))
    clipped = write.op("Min", write.op("Max", shifted, write.number(0.0)), write.number(6.0))
    graph.replace_all_inputs(node.output[0], write.op("Mul", x, write.op("Div", clipped, write.number(6.0))))
    graph.remove_node(node.name)


HANDLERS: dict[str, tuple[Any, list[Any]]] = {
    "TFL_QUANTIZE": (quantize, []),
    "TFL_DEQUANTIZE": (dequantize, []),
}


class _Writer:
    """Makes nodes of the shape of one node's output, in float32."""

    def __init__(self, graph: TensorGraph, node: TensorNode) -> None:
        self._graph, self._node = graph, node
        self.shape = graph.get_shape(node.output[0])
        self._made = 0

    def op(self, operator: str, *inputs: str) -> str:
        made = self._graph.make_node(
            operator, list(inputs), shapes=[self.shape], dtypes=[_onnx(np.dtype(np.float32))]
        )
        return str(made.output[0])

    def cast(self, value: str) -> str:
        float32 = _onnx(np.dtype(np.float32))
        made = self._graph.make_node(
            "Cast", [value], attr={"to": float32}, shapes=[self.shape], dtypes=[float32]
        )
        return str(made.output[0])

    def number(self, value: npt.ArrayLike) -> str:
        self._made += 1
        name = f"{self._node.name}/number{self._made}"
        return str(self._graph.make_const(name, np.asarray(value, np.float32)).output[0])

    def rounded(self, value: str) -> str:
        """*value* rounded, a tie away from zero."""
        half = self.number(0.5)
        return self.op(
            "Mul", self.op("Sign", value), self.op("Floor", self.op("Add", self.op("Abs", value), half))
        )

    def along(self, name: str) -> Array:
        """The node's scale or zero point, so that it broadcasts against the tensor."""
        values = np.array(self._node.get_attr_value(name), np.float32)
        if values.size == 1:
            return values.reshape(())
        rank = len(self._graph.get_shape(self._node.input[0]))
        axis = self._node.get_attr_value("quantized_dimension", 0)
        return values.reshape([-1 if place == axis else 1 for place in range(rank)])


def _averages(node: TensorNode) -> bool:
    """Whether what *node* quantizes is an average, but for how it is laid out."""
    made = node.inputs[0]
    while made is not None and made.type in MOVING:
        made = made.inputs[0]
    return made is not None and made.type in AVERAGING


def _onnx(dtype: np.dtype[Any]) -> int:
    import onnx

    return int(onnx.helper.np_dtype_to_tensor_dtype(dtype))


def _numpy(graph: TensorGraph, value: str) -> np.dtype[Any]:
    import onnx

    return np.dtype(onnx.helper.tensor_dtype_to_np_dtype(graph.get_dtype(value)))
