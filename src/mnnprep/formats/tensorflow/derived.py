"""The tensors that a graph computes from its weights alone: a converter may fold them.

TFLiteConverter and tf2onnx compute such parts beforehand: a batch norm becomes a factor and a shift, and
the factor may go on into the kernel before it.  The factors and shifts are computed here from the source's
weights.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from mnnprep.deps import require
from mnnprep.formats.tensorflow import graphs
from mnnprep.formats.tensorflow.skeleton import Skeleton
from mnnprep.model.files import Arrays

ARITHMETIC = frozenset(
    {
        "FakeQuantWithMinMaxArgs",
        "FakeQuantWithMinMaxVars",
        "FakeQuantWithMinMaxVarsPerChannel",
        "Add",
        "AddV2",
        "Sub",
        "Mul",
        "RealDiv",
        "Div",
        "Rsqrt",
        "Sqrt",
        "Square",
        "Neg",
        "Reciprocal",
        "Exp",
        "Softplus",
        "Sum",
        "Mean",
        "Maximum",
        "Relu",
        "Pow",
        "MatMul",
    }
)
FUSED = ("FusedBatchNorm", "FusedBatchNormV2", "FusedBatchNormV3")


def parameters(skeleton: Skeleton) -> Arrays:
    """The weights by node: every captured value, and every floating constant of more than one element."""
    found = skeleton.constants()
    return {
        n: a
        for n, a in found.items()
        if a.dtype.kind == "f" and a.size and (n in skeleton.values or a.size > 1)
    }


def count(skeleton: Skeleton, weights: Arrays) -> int:
    """Count the parameters that the source has.

    They are the elements of its variables, or, if it is frozen, of the floating constants in its graph and in
    its functions.
    """
    variables = [int(a.size) for n, a in weights.items() if n in skeleton.values]
    if variables:
        return sum(variables)
    floating = require("tensorflow.core.framework.types_pb2")
    kinds = (floating.DT_FLOAT, floating.DT_HALF, floating.DT_BFLOAT16, floating.DT_DOUBLE)
    bodies = [
        n.attr["value"].tensor for f in skeleton.graph.library.function for n in f.node_def if n.op == "Const"
    ]
    inside: list[int] = [
        math.prod(d.size for d in t.tensor_shape.dim)
        for t in bodies
        if t.dtype in kinds and t.tensor_shape.dim
    ]
    return sum(int(a.size) for a in weights.values()) + sum(inside)


def scalars(skeleton: Skeleton) -> Arrays:
    """The floating constants of one element, by node: numbers that a converter may multiply into a weight."""
    return {
        n: a
        for n, a in skeleton.constants().items()
        if a.dtype.kind == "f" and a.size == 1 and n not in skeleton.values
    }


def derived(skeleton: Skeleton, weights: Arrays) -> dict[str, tuple[Any, list[str]]]:
    """By node, what is computed from *weights* alone, with the names of the weights behind it."""
    nodes = graphs.nodes_of(skeleton.graph)
    behind: dict[str, set[str]] = {}
    wanted: list[str] = []
    for node in graphs.in_order(skeleton.graph):
        data = [graphs.producer(i) for i in node.input]
        if node.op == "Const":
            behind[node.name] = {node.name} & set(weights)
        elif (
            data
            and all(d in behind for d in data)
            and node.op in ARITHMETIC | {"Identity", "Reshape", "Squeeze", "ExpandDims", "Transpose", "Cast"}
        ):
            behind[node.name] = set().union(*(behind[d] for d in data))
            if node.op in ARITHMETIC and behind[node.name]:
                wanted.append(node.name)
    values = _evaluate(skeleton, wanted)
    found = {name: (values[name], sorted(behind[name])) for name in wanted}
    for node in skeleton.graph.node:
        if node.op in FUSED and not graphs.in_training(node):
            tensors = [_constant(nodes, i, skeleton) for i in node.input[1:5]]
            if all(t is not None for t in tensors):
                (g, gamma), (b, beta), (m, mean), (v, variance) = (t for t in tensors if t is not None)
                scale = gamma / np.sqrt(variance + np.float32(node.attr["epsilon"].f))
                found[f"{node.name}/scale"] = (scale, [n for n in (g, v) if n in weights])
                found[f"{node.name}/shift"] = (beta - mean * scale, [n for n in (g, b, m, v) if n in weights])
    return found


def _constant(nodes: dict[str, Any], text: str, skeleton: Skeleton) -> tuple[str, Any] | None:
    node = nodes[graphs.producer(text)]
    while node.op == "Identity":
        node = nodes[graphs.producer(node.input[0])]
    if node.op != "Const":
        return None
    value = skeleton.values.get(node.name)
    return node.name, value() if value else require("tensorflow.python.framework.tensor_util").MakeNdarray(
        node.attr["value"].tensor
    )


def _evaluate(skeleton: Skeleton, wanted: list[str]) -> Arrays:
    """The values of the nodes *wanted*, the skeleton's values fed."""
    if not wanted:
        return {}
    from mnnprep.formats.tensorflow.graph_files import open_session

    graph = graphs.prune(skeleton.graph, wanted)
    for node in graph.node:
        if node.name in skeleton.values:
            dtype, shape = node.attr["dtype"].type, node.attr["value"].tensor.tensor_shape
            kept = type(shape)()
            kept.CopyFrom(shape)
            node.op = "Placeholder"
            node.attr.clear()
            node.attr["dtype"].type = dtype
            node.attr["shape"].shape.CopyFrom(kept)
    session = open_session(graph, trust=True)  # a part of what the source was loaded from
    feeds = {f"{n}:0": v() for n, v in skeleton.values.items() if any(node.name == n for node in graph.node)}
    values: Arrays = session.run({n: f"{n}:0" for n in wanted}, feeds)
    return values
