"""The outputs of an ONNX graph that round while they are computed, and their steps."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from mnnprep.comparison.steps import Array, between_kernels
from mnnprep.errors import RefusedError
from mnnprep.formats.onnx import graph
from mnnprep.model.net import Case, Refused
from mnnprep.model.steps import Step

if TYPE_CHECKING:
    from onnx import ModelProto, NodeProto

    from mnnprep.formats.onnx.net import OnnxNet

STORES = frozenset({"QuantizeLinear", "QLinearConv", "QLinearMatMul"})
# operators that round what they are given, at a scale of their own
ROUNDS = STORES | {
    "DynamicQuantizeLinear",
    "DynamicQuantizeLSTM",
    "DynamicQuantizeMatMul",
    "QAttention",
    "QEmbedLayerNormalization",
    "QGemm",
    "QOrderedMatMul",
}
FLOAT = 1  # TensorProto.FLOAT
PREFIX = "QLinear"  # com.microsoft's operators of stored integers
# operators that hand on values as they are
MOVES = frozenset(
    {
        "Identity",
        "Reshape",
        "Transpose",
        "Flatten",
        "Squeeze",
        "Unsqueeze",
        "Slice",
        "Gather",
        "DepthToSpace",
        "SpaceToDepth",
        "MaxPool",
        "Relu",
        "Expand",
        "Tile",
    }
)


def steps(net: OnnxNet, cases: Sequence[Case]) -> dict[str, Step]:
    """Return the steps of the outputs of *net* that are rounded on the way.

    How far onnxruntime's optimized kernels are from its graph as written is measured on *cases*.
    """
    from mnnprep.formats.onnx.net import OnnxNet

    sizes = step_sizes(net.model)
    if not sizes:
        return {}
    pairs: dict[str, list[tuple[Array, Array]]] = {name: [] for name in sizes}
    try:
        other = OnnxNet(net.path, optimize=True)
        for case in cases:
            run = other.run(case.inputs)
            for name, found in pairs.items():
                found.append((case.outputs[name], run[name]))
    except (Refused, RefusedError):  # an optimizer that fails says nothing of the net
        pairs = {name: [] for name in sizes}
    return {name: between_kernels(size, pairs[name]) for name, size in sizes.items()}


def step_sizes(model: ModelProto) -> dict[str, float]:
    """The size of the step of every output that depends on a rounded value; see :class:`Step`."""
    nodes = list(graph.all_nodes(model.graph))
    makers = {name: node for node in nodes for name in node.output if name}
    rounded = _rounded(nodes)
    scales = _scalars(model, nodes)
    found = {}
    for output in model.graph.output:
        name = output.name
        if name not in rounded:
            continue
        integral = output.type.tensor_type.elem_type in _integers()
        size = _size(makers, name, scales)
        if not integral or size == 1.0:  # other integers are choices and counts: these must be equal
            found[name] = size
    return found


def input_scales(model: ModelProto) -> dict[str, float]:
    """The scale of every floating input that a QuantizeLinear takes to 8 bits, as it is or moved."""
    nodes = list(model.graph.node)
    makers = {name: node for node in nodes for name in node.output if name}
    scales = _scalars(model, nodes)
    inputs = {v.name for v in model.graph.input if v.type.tensor_type.elem_type == FLOAT}
    found = {}
    for node in nodes:
        if node.op_type != "QuantizeLinear" or not _in_bytes(model, node):
            continue
        name = node.input[0]
        while name in makers and makers[name].op_type in MOVES - {"Relu"} and makers[name].input:
            name = makers[name].input[0]
        if name in inputs and scales.get(node.input[1], 0.0) > 0:
            found[name] = scales[node.input[1]]
    return found


def _in_bytes(model: ModelProto, node: NodeProto) -> bool:
    """Whether a QuantizeLinear gives integers of 8 bits."""
    from onnx import TensorProto as Types

    if any(a.name == "output_dtype" for a in node.attribute):
        return False
    if len(node.input) < 3 or not node.input[2]:
        return True
    kinds = {t.name: t.data_type for t in model.graph.initializer}
    return kinds.get(node.input[2]) in (Types.INT8, Types.UINT8)


def _rounded(nodes: Sequence[NodeProto]) -> set[str]:
    """The names of all values that a rounded one decides."""
    found: set[str] = set()
    before = -1
    while before != len(found):
        before = len(found)
        for node in nodes:
            if _rounds(node) or any(name in found for name in node.input):
                found.update(filter(None, node.output))
    return found


def _rounds(node: NodeProto) -> bool:
    return node.op_type in ROUNDS or node.op_type.startswith(PREFIX)


def _size(makers: Mapping[str, NodeProto], name: str, scales: Mapping[str, float]) -> float:
    """The step of the value *name*; 0 if it has no scale of its own."""
    node = makers.get(name)
    while node is not None and node.op_type in MOVES and node.input:
        node = makers.get(node.input[0])
    if node is None:
        return 0.0
    if node.op_type in STORES or node.op_type.startswith(PREFIX):
        return 1.0
    if node.op_type != "DequantizeLinear":
        return 0.0
    return scales.get(node.input[1], 0.0)


def _scalars(model: ModelProto, nodes: Sequence[NodeProto]) -> dict[str, float]:
    """The constants of one number, by name."""
    from onnx import numpy_helper

    tensors = {t.name: t for t in model.graph.initializer}
    tensors |= {
        node.output[0]: a.t
        for node in nodes
        if node.op_type == "Constant"
        for a in node.attribute
        if a.name == "value"
    }
    return {
        name: float(np.asarray(numpy_helper.to_array(tensor)).reshape(-1)[0])
        for name, tensor in tensors.items()
        if np.prod(tensor.dims) == 1 and not tensor.external_data
    }


def _integers() -> frozenset[int]:
    from onnx import TensorProto as Types

    return frozenset({Types.INT8, Types.UINT8, Types.INT16, Types.UINT16, Types.INT32, Types.INT64})
