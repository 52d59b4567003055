"""A fault of MNN as the smallest model that shows it, and how such models are written.

Every model is right in onnxruntime. ``runs`` says how often MNN is given a model that it gets wrong in some
runs alone: what it reads or writes there is not its own memory.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

node = helper.make_node
Arrays = dict[str, Any]


LEADING = ("Shape", "Neg", "Squeeze")


class Fault(NamedTuple):
    """``form`` is what stands in the model; ``does`` what MNN does with it, ``right`` what it should.

    ``rule`` repairs it; empty: none does.
    """

    form: str
    does: str
    right: str
    rule: str
    model: onnx.ModelProto
    feeds: list[Arrays]
    runs: int = 1

    @property
    def operator(self) -> str:
        """The operator at fault: that of the first node of the model that is not there to lead to it."""
        nodes = [n.op_type for n in self.model.graph.node]
        return next((n for n in nodes if n not in LEADING), nodes[0])


def model_of(
    nodes: Sequence[onnx.NodeProto],
    feeds: Arrays | Sequence[Arrays],
    weights: Mapping[str, Any] | None = None,
    *,
    opset: int = 13,
    gives: Mapping[str, int] | None = None,
) -> tuple[onnx.ModelProto, list[Arrays]]:
    """A model of *nodes* that takes the arrays of *feeds*, sizes that change being open, and these cases.

    It gives ``y`` in float32, or what *gives* says.
    """
    cases = [feeds] if isinstance(feeds, dict) else list(feeds)
    inputs = []
    for name, array in cases[0].items():
        sizes = [
            size if all(np.shape(c[name])[axis] == size for c in cases) else f"{name}_{axis}"
            for axis, size in enumerate(array.shape)
        ]
        kind = helper.np_dtype_to_tensor_dtype(array.dtype)
        inputs.append(helper.make_tensor_value_info(name, kind, sizes))
    outputs = [
        helper.make_tensor_value_info(name, kind, None)
        for name, kind in (gives or {"y": TensorProto.FLOAT}).items()
    ]
    initializers = [
        a if isinstance(a, TensorProto) else numpy_helper.from_array(np.asarray(a), n)
        for n, a in (weights or {}).items()
    ]
    graph = helper.make_graph(nodes, "net", inputs, outputs, initializers)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8), cases


def floats(*shape: int, seed: int = 0) -> Any:
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def ints(*shape: int, dtype: Any = np.int64, seed: int = 0) -> Any:
    return np.random.default_rng(seed).integers(-9, 10, shape).astype(dtype)


def one(op_type: str, feeds: Arrays, **more: Any) -> tuple[onnx.ModelProto, list[Arrays]]:
    """A model of one node that takes *feeds* and then the weights; other keywords are its attributes."""
    weights, opset, gives = more.pop("weights", {}), more.pop("opset", 13), more.pop("gives", None)
    taken = more.pop("takes", [*feeds, *weights])
    return model_of(
        [node(op_type, taken, list(gives or ("y",)), **more)], feeds, weights, opset=opset, gives=gives
    )


X = {"x": floats(4, 6)}
IMAGE = {"x": floats(1, 2, 6, 6)}
VOLUME = {"x": floats(2, 2, 4, 4, 4)}
NANS = np.float32([np.nan, 2, -3])
INT, LONG, BOOL, BYTE = TensorProto.INT32, TensorProto.INT64, TensorProto.BOOL, TensorProto.UINT8
