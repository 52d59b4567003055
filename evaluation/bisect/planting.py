"""Faults for :mod:`evaluation.bisect`: a converter that changes one node of what it is given, then does MNN's
work.

Whatever model or piece of it comes, the node is found by its output's name; a piece without it is converted
as it is.  So the fault lies on MNN's side, and the untouched model stays the reference.  Every call is
counted in a log, apart from what the tool says.
"""

from __future__ import annotations

import json
import os
import random
import sys
import tempfile
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import helper, numpy_helper

SWAPS = {
    "Relu": "Abs",
    "Sigmoid": "Tanh",
    "Tanh": "Sigmoid",
    "Add": "Sub",
    "Sub": "Add",
    "Mul": "Add",
    "Div": "Mul",
    "Exp": "Sigmoid",
    "Sqrt": "Abs",
    "Erf": "Tanh",
    "Abs": "Relu",
    "Neg": "Abs",
    "Softplus": "Relu",
    "Elu": "Relu",
    "LeakyRelu": "Relu",
    "HardSigmoid": "Sigmoid",
    "MaxPool": "AveragePool",
    "AveragePool": "MaxPool",
    "GlobalAveragePool": "GlobalMaxPool",
    "ReduceMean": "ReduceMax",
    "ReduceMax": "ReduceMean",
    "PRelu": "Max",
    "Clip": "",
    "HardSwish": "Relu",
    "Softmax": "LogSoftmax",
    "LogSoftmax": "Softmax",
    "Pow": "Add",
}
UNORDERED = frozenset({"Sub", "Div", "Pow", "Concat", "Greater", "Less"})  # whose inputs can be swapped
WEIGHTED = frozenset(
    {"Conv", "ConvTranspose", "Gemm", "MatMul", "BatchNormalization", "Add", "Mul", "PRelu", "LSTM"}
)
PERTURBED = (0.03, 0.3)  # of each weight, at random


def possible(node: onnx.NodeProto, initializers: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """The faults that *node* can have."""
    if SWAPS.get(node.op_type):
        yield {"kind": "operator", "to": SWAPS[node.op_type]}
    if node.op_type in UNORDERED and len(node.input) >= 2 and not set(node.input[:2]) & set(initializers):
        yield {"kind": "swapped inputs"}
    for place, name in enumerate(node.input):
        if (
            node.op_type in WEIGHTED
            and name in initializers
            and initializers[name].data_type == 1
            and np.prod(initializers[name].dims) > 1
        ):
            yield from ({"kind": "weight", "place": place, "by": share} for share in PERTURBED)
    for attribute in node.attribute:
        if attribute.name == "pads" and any(attribute.ints):
            half = len(attribute.ints) // 2
            moved = [0] * half + [
                a + b for a, b in zip(attribute.ints[:half], attribute.ints[half:], strict=True)
            ]
            yield {"kind": "attribute", "name": "pads", "value": moved}
        elif attribute.name in ("alpha", "beta", "epsilon") and node.op_type != "Gemm":
            yield {"kind": "attribute", "name": attribute.name, "value": attribute.f * 3 + 0.1}
        elif attribute.name == "axis" and node.op_type in ("Softmax", "LogSoftmax"):
            yield {
                "kind": "attribute",
                "name": "axis",
                "value": 1 if attribute.i in (-1,) else attribute.i - 1,
            }


def planted(model: onnx.ModelProto, fault: dict[str, Any]) -> bool:
    """Put *fault* into *model*, in bodies of control flow too; whether its node is there."""
    return _in_graph(model.graph, model.graph, fault)


def _in_graph(graph: Any, top: Any, fault: dict[str, Any]) -> bool:
    for node in graph.node:
        if node.output and node.output[0] == fault["output"]:
            _change(node, graph, top, fault)
            return True
        if any(_in_graph(a.g, top, fault) for a in node.attribute if a.HasField("g")):
            return True
    return False


def _change(node: Any, graph: Any, top: Any, fault: dict[str, Any]) -> None:
    kind = fault["kind"]
    if kind == "operator":
        node.op_type = fault["to"]
        kept = {"MaxPool", "AveragePool", "ReduceMean", "ReduceMax", "Softmax", "LogSoftmax"}
        if node.op_type not in kept:
            del node.attribute[:]
        for name in ("ceil_mode", "count_include_pad", "dilations"):
            for attribute in [a for a in node.attribute if a.name == name and node.op_type in kept]:
                node.attribute.remove(attribute)
    elif kind == "swapped inputs":
        node.input[0], node.input[1] = node.input[1], node.input[0]
    elif kind == "attribute":
        for attribute in [a for a in node.attribute if a.name == fault["name"]]:
            node.attribute.remove(attribute)
        node.attribute.append(helper.make_attribute(fault["name"], fault["value"]))
    else:
        name = node.input[fault["place"]]
        tensor = next(t for g in (graph, top) for t in g.initializer if t.name == name)
        array = numpy_helper.to_array(tensor)
        rng = np.random.default_rng(zlib.crc32(name.encode()))
        changed = (array * (1 + fault["by"] * rng.choice([-1.0, 1.0], array.shape))).astype(array.dtype)
        graph.initializer.append(numpy_helper.from_array(changed, f"{name}/planted"))
        node.input[fault["place"]] = f"{name}/planted"


def choose(model: onnx.ModelProto, rng: random.Random) -> tuple[dict[str, Any], str]:
    """A fault of a node picked at random, and the node's label."""
    initializers = {t.name: t for t in model.graph.initializer}
    able = [(node, faults) for node in model.graph.node if (faults := list(possible(node, initializers)))]
    node, faults = rng.choice(able)
    return {**rng.choice(faults), "output": node.output[0]}, f"{node.op_type} {node.name or node.output[0]}"


def write_converter(path: Path, fault: dict[str, Any], log: Path) -> Path:
    """An executable that takes MNNConvert's options."""
    path.write_text(
        f"#!{sys.executable}\nimport runpy, sys\nconvert = runpy.run_path({__file__!r})['convert']\n"
        f"convert({json.dumps(json.dumps(fault))}, {str(log)!r}, sys.argv[1:])\n"
    )
    path.chmod(0o755)
    log.write_text("")
    return path


def convert(fault: str, log: str, arguments: list[str]) -> None:
    """What the executable does."""
    import _tools

    with open(log, "a") as file:
        file.write("conversion\n")
    place = arguments.index("--modelFile") + 1
    model = onnx.load(arguments[place])
    with tempfile.TemporaryDirectory() as directory:
        path = os.path.join(directory, "model.onnx")
        if planted(model, json.loads(fault)):
            onnx.save(model, path)
            arguments[place] = path
        _tools.mnnconvert(["MNNConvert", *arguments])
