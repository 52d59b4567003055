"""An ONNX model rounded to float16 as MNN computes it at precision ``low``, for onnxruntime.

Measured with MNN 3.6.1 on ARM64 CPUs with half-precision arithmetic:

- what constants alone give is computed in float32 when the model is converted, and ends at 65,504;
- a norm written out (mean of squares, epsilon, square root, division) becomes one operator that computes in
  float32, if the square of a centred value is a Pow; squared by a Mul, or with a power of -0.5, it does not;
- the statistics of a BatchNormalization are made a factor and a shift beforehand;
- Softplus, ReduceLogSumExp, ReduceL2 and LpNormalization are made of simpler operators, whose results are
  rounded;
- a graph input that is only cast to integers is not rounded.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from mnnprep.deps import require
from mnnprep.formats.onnx import graph as graphs
from mnnprep.formats.onnx.half import referring, types_asked
from mnnprep.formats.onnx.outline import taken
from mnnprep.formats.onnx.rounding import FLOATING, Rounding

if TYPE_CHECKING:
    from onnx import GraphProto, ModelProto, NodeProto

FILE_NAME = "low.onnx"
OPSET = 13  # Clip with operands, ReduceSum with axes as one
PREFIX = "/low/"
SINCE_AXES = 18  # from here on the axes of every reduction are an operand
WRITTEN_OUT = frozenset({"Softplus", "ReduceLogSumExp", "ReduceL2", "LpNormalization"})


def write_low(source: Path, directory: Path) -> Path:
    """Write *source* rounded as MNN rounds it; the values of its main graph keep their names.

    The file is for a session whose external data lies beside *source*.
    """
    target = directory / FILE_NAME
    model = referring(source, OPSET)
    write_out(model)
    kept = norms(model.graph) | statistics(model.graph) | folded(model.graph)
    Rounding(
        model,
        "float16",
        lambda names: types_asked(model, names, target, source.parent),
        kept=frozenset(kept),
        saturated=frozenset(constants(model.graph)),
    ).apply()
    target.write_bytes(model.SerializeToString())
    return target


def write_out(model: ModelProto) -> None:
    """Put the parts that MNN makes of it in place of each operator in WRITTEN_OUT."""
    opset = graphs.opset_of(model)
    nodes: list[NodeProto] = []
    for number, node in enumerate(model.graph.node):
        known = node.op_type in WRITTEN_OUT and node.domain in graphs.STANDARD_DOMAINS
        nodes += _parts(model.graph, node, f"{PREFIX}{number}/", opset) if known else [node]
    made = [type(node).FromString(node.SerializeToString()) for node in nodes]
    del model.graph.node[:]
    model.graph.node.extend(made)


def _parts(graph: GraphProto, node: NodeProto, prefix: str, opset: int) -> Iterator[NodeProto]:
    make = require("onnx.helper").make_node
    x, y = node.input[0], node.output[0]
    attributes = {a.name: a for a in node.attribute}
    keep = attributes["keepdims"].i if "keepdims" in attributes else 1

    def stored(name: str, value: list[int]) -> str:
        graph.initializer.append(require("onnx.numpy_helper").from_array(np.array(value), prefix + name))
        return prefix + name

    def axes() -> list[str]:
        if node.op_type == "LpNormalization":
            return [stored("axes", [attributes["axis"].i if "axis" in attributes else -1])]
        if opset >= SINCE_AXES:
            return [name for name in node.input[1:2] if name]
        return [stored("axes", list(attributes["axes"].ints))] if "axes" in attributes else []

    if node.op_type == "Softplus":  # 1 is e to the power of 0, in the type of x
        yield make("Sub", [x, x], [prefix + "zero"])
        yield make("Exp", [prefix + "zero"], [prefix + "one"])
        yield make("Exp", [x], [prefix + "exp"])
        yield make("Add", [prefix + "exp", prefix + "one"], [prefix + "sum"])
        yield make("Log", [prefix + "sum"], [y])
    elif node.op_type == "ReduceLogSumExp":
        yield make("Exp", [x], [prefix + "exp"])
        yield make("ReduceSum", [prefix + "exp", *axes()], [prefix + "sum"], keepdims=keep)
        yield make("Log", [prefix + "sum"], [y])
    elif node.op_type == "LpNormalization" and "p" in attributes and attributes["p"].i == 1:
        yield make("Abs", [x], [prefix + "abs"])
        yield make("ReduceSum", [prefix + "abs", *axes()], [prefix + "sum"], keepdims=1)
        yield make("Div", [x, prefix + "sum"], [y])
    else:
        keep = 1 if node.op_type == "LpNormalization" else keep
        yield make("Mul", [x, x], [prefix + "square"])
        yield make("ReduceSum", [prefix + "square", *axes()], [prefix + "sum"], keepdims=keep)
        root = y if node.op_type == "ReduceL2" else prefix + "root"
        yield make("Sqrt", [prefix + "sum"], [root])
        if root != y:
            yield make("Div", [x, root], [y])


def constants(graph: GraphProto) -> set[str]:
    """The values that follow from no input, not even from its shape."""
    free = {t.name for t in graph.initializer}
    for node in graph.node:
        if all(name in free for name in taken(node) if name):
            free.update(o for o in node.output if o)
    return free


def folded(graph: GraphProto) -> set[str]:
    """The constants that only other constants are made of."""
    free = constants(graph)
    readers: dict[str, list[NodeProto]] = {}
    for node in graph.node:
        for name in taken(node):
            readers.setdefault(name, []).append(node)
    ends = {o.name for o in graph.output}
    return {
        name
        for name in free
        if name not in ends and all(free.issuperset(node.output) for node in readers.get(name, []))
    }


def only_integers(graph: GraphProto) -> list[str]:
    """The graph inputs that are only cast to integers, which MNN does from float32."""
    found = []
    for value in graph.input:
        users = [node for node in graph.node if value.name in taken(node)]
        if users and all(_to_integer(node) for node in users):
            found.append(value.name)
    return found


def _to_integer(node: NodeProto) -> bool:
    to = next((a.i for a in node.attribute if a.name == "to"), 0)
    return node.op_type == "Cast" and to not in FLOATING


def statistics(graph: GraphProto) -> set[str]:
    """The operands of BatchNormalizations beside their data."""
    return {n for node in graph.node if node.op_type == "BatchNormalization" for n in node.input[1:] if n}


def norms(graph: GraphProto) -> set[str]:
    """The values inside the norms that MNN makes one operator of."""
    makers = {o: node for node in graph.node for o in node.output}
    readers: dict[str, list[NodeProto]] = {}
    for node in graph.node:
        for name in node.input:
            readers.setdefault(name, []).append(node)
    powers = _scalars(graph)
    inside: set[str] = set()
    for mean in graph.node:
        square = makers.get(mean.input[0]) if mean.op_type == "ReduceMean" else None
        if square is None or not _squares(square, powers):
            continue
        chain = _to_root(mean, readers)
        centred = makers.get(square.input[0])
        average = _average(centred, makers)
        if chain is None or (average is not None and square.op_type != "Pow"):
            continue
        inside |= {square.output[0], mean.output[0], *chain}
        if average is not None and centred is not None:
            inside |= {centred.output[0], average}
    return inside


def _scalars(graph: GraphProto) -> dict[str, float]:
    return {n: float(v) for n, v in graphs.scalar_constants(graph).items() if isinstance(v, (int, float))}


def _squares(node: NodeProto, powers: dict[str, float]) -> bool:
    if node.op_type == "Pow":
        return powers.get(node.input[1]) == 2
    return node.op_type == "Mul" and node.input[0] == node.input[1]


def _to_root(mean: NodeProto, readers: dict[str, list[NodeProto]]) -> list[str] | None:
    """The values from *mean* to the square root's, or its reciprocal's; None if it is no norm's."""
    values: list[str] = []
    name = mean.output[0]
    for operator in ("Add", "Sqrt"):
        users = readers.get(name, [])
        if len(users) != 1 or users[0].op_type != operator:
            return None
        name = users[0].output[0]
        values.append(name)
    ends = readers.get(name, [])
    if ends and all(node.op_type == "Reciprocal" for node in ends):
        values += [node.output[0] for node in ends]
        return values
    return values if ends and all(node.op_type == "Div" for node in ends) else None


def _average(centred: NodeProto | None, makers: dict[str, NodeProto]) -> str | None:
    """The mean that *centred* is taken from, if it is a value less its mean."""
    if centred is None or centred.op_type != "Sub":
        return None
    mean = makers.get(centred.input[1])
    is_mean = mean is not None and mean.op_type == "ReduceMean" and mean.input[0] == centred.input[0]
    return centred.input[1] if is_mean else None
