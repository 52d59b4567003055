"""ONNX faults: what is done to a right model's file, each a function from a model to the model with the
fault.

A function raises LookupError where the model has no place for it.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

Fault = Callable[[onnx.ModelProto], None]


def doctored(source: Path, target: Path, fault: Fault) -> Path:
    """*source* with *fault* as *target*."""
    model = onnx.load(source)
    fault(model)
    onnx.save(model, target)
    return target


def _floats(model: onnx.ModelProto) -> list[onnx.TensorProto]:
    """The float weights, the largest first."""
    found = [
        t
        for t in model.graph.initializer
        if t.data_type == TensorProto.FLOAT and np.prod(t.dims, dtype=int) > 3
    ]
    return sorted(found, key=lambda t: -int(np.prod(t.dims, dtype=int)))


def _set(tensor: onnx.TensorProto, array: np.ndarray[Any, Any]) -> None:
    tensor.CopyFrom(numpy_helper.from_array(np.ascontiguousarray(array), tensor.name))


def weight(number: int, factor: float = 1.01) -> Fault:
    def change(model: onnx.ModelProto) -> None:
        weights = _floats(model)
        if number >= len(weights):
            raise LookupError("no such weight")
        _set(weights[number], numpy_helper.to_array(weights[number]) * np.float32(factor))

    return change


def swap_weights(model: onnx.ModelProto) -> None:
    weights = _floats(model)
    for i, a in enumerate(weights):
        for b in weights[i + 1 :]:
            if list(a.dims) == list(b.dims):
                x, y = numpy_helper.to_array(a), numpy_helper.to_array(b)
                _set(a, y)
                _set(b, x)
                return
    raise LookupError("no two weights of one shape")


def half_weights(model: onnx.ModelProto) -> None:
    """Weights through float16 after a scale that overflows there."""
    weights = _floats(model)
    if not weights:
        raise LookupError("no weight")
    with np.errstate(over="ignore"):
        _set(
            weights[0],
            (numpy_helper.to_array(weights[0]) * 2e5).astype(np.float16).astype(np.float32) / np.float32(2e5),
        )


def transposed_weight(model: onnx.ModelProto) -> None:
    for tensor in _floats(model):
        if len(tensor.dims) >= 2 and tensor.dims[-1] == tensor.dims[-2]:
            _set(tensor, np.swapaxes(numpy_helper.to_array(tensor), -1, -2))
            return
    raise LookupError("no square weight")


def _append(
    model: onnx.ModelProto,
    number: int,
    op: str,
    extra: tuple[np.ndarray[Any, Any], ...] = (),
    **attributes: Any,
) -> None:
    """A node between what makes output *number* and the output."""
    graph = model.graph
    name = graph.output[number].name
    inner = f"{name}_before"
    maker = next(n for n in graph.node if name in n.output)
    maker.output[list(maker.output).index(name)] = inner
    for node in graph.node:
        for place, used in enumerate(node.input):
            if used == name:
                node.input[place] = inner
    for place, array in enumerate(extra):
        graph.initializer.append(numpy_helper.from_array(array, f"{name}_extra{place}"))
    graph.node.append(
        helper.make_node(op, [inner, *(f"{name}_extra{p}" for p in range(len(extra)))], [name], **attributes)
    )


def _rank(model: onnx.ModelProto, number: int = 0) -> int:
    return len(model.graph.output[number].type.tensor_type.shape.dim)


def _free_output(model: onnx.ModelProto, number: int = 0) -> None:
    model.graph.output[number].type.tensor_type.ClearField("shape")


def output_transposed(model: onnx.ModelProto) -> None:
    rank = _rank(model)
    if rank < 2:
        raise LookupError("a vector")
    _append(model, 0, "Transpose", perm=[*range(rank - 2), rank - 1, rank - 2])
    _free_output(model)


def output_flipped(model: onnx.ModelProto) -> None:
    """The last axis the other way round: an axis read in the wrong order."""
    ends = (np.array([-1]), np.array([np.iinfo(np.int64).min]), np.array([-1]), np.array([-1]))
    _append(model, 0, "Slice", ends)


def output_emptied(model: onnx.ModelProto) -> None:
    _append(model, 0, "Slice", (np.array([0]), np.array([0]), np.array([0])))
    _free_output(model)


def output_zeroed(model: onnx.ModelProto) -> None:
    _append(model, 0, "Mul", (np.zeros(1, np.float32),))


def output_dropped(model: onnx.ModelProto) -> None:
    if len(model.graph.output) < 2:
        raise LookupError("one output")
    del model.graph.output[-1]


def outputs_exchanged(model: onnx.ModelProto) -> None:
    """Two outputs carry each other's name."""
    if len(model.graph.output) < 2:
        raise LookupError("one output")
    a, b = (v.name for v in list(model.graph.output)[-2:])
    other = {a: b, b: a}
    for node in model.graph.node:
        for names in (node.input, node.output):
            for place, name in enumerate(names):
                names[place] = other.get(name, name)
    types = [copy.deepcopy(v.type) for v in list(model.graph.output)[-2:]]
    for value, kind in zip(list(model.graph.output)[-2:], reversed(types), strict=True):
        value.type.CopyFrom(kind)


def output_renamed(model: onnx.ModelProto) -> None:
    """The last output taken from the node before: same name and rank, another value."""
    graph = model.graph
    maker = next(n for n in graph.node if graph.output[0].name in n.output)
    before = next((n for n in graph.node if maker.input and maker.input[0] in n.output), None)
    if before is None or maker.op_type in (
        "Reshape",
        "Flatten",
        "Gemm",
        "MatMul",
        "LSTM",
        "GRU",
        "Transpose",
        "Squeeze",
    ):
        raise LookupError("nothing of that shape before")
    maker.CopyFrom(helper.make_node("Identity", [maker.input[0]], [graph.output[0].name]))
    _free_output(model)


def constant_output(value: float) -> Fault:
    """The whole output folded to a constant, as by a folding that took an input for a constant."""

    def change(model: onnx.ModelProto) -> None:
        _append(model, 0, "Clip", (np.array(value, np.float32), np.array(value, np.float32)))

    return change


def opset(version: int) -> Fault:
    """The same nodes under another opset number; where nothing means something else by it, there is no fault
    to plant.
    """

    def change(model: onnx.ModelProto) -> None:
        if not any(n.op_type in ("Softmax", "LogSoftmax", "Hardmax") for n in model.graph.node):
            raise LookupError("nothing that changed")
        next(o for o in model.opset_import if o.domain in ("", "ai.onnx")).version = version

    return change


def attribute(op: str, name: str, value: Any) -> Fault:
    def change(model: onnx.ModelProto) -> None:
        for node in model.graph.node:
            if node.op_type == op:
                kept = [a for a in node.attribute if a.name != name]
                before = next((helper.get_attribute_value(a) for a in node.attribute if a.name == name), None)
                if before == value:
                    continue
                del node.attribute[:]
                node.attribute.extend([*kept, helper.make_attribute(name, value)])
                return
        raise LookupError(f"no {op}")

    return change


def operator(op: str, other: str, *, inputs: int | None = None, **attributes: Any) -> Fault:
    """The first *op* replaced by *other*."""

    def change(model: onnx.ModelProto) -> None:
        for node in model.graph.node:
            if node.op_type == op:
                made = helper.make_node(other, list(node.input)[:inputs], list(node.output)[:1], **attributes)
                node.CopyFrom(made)
                return
        raise LookupError(f"no {op}")

    return change


def swapped_inputs(op: str) -> Fault:
    def change(model: onnx.ModelProto) -> None:
        for node in model.graph.node:
            if node.op_type == op and len(node.input) >= 2:
                a, b = node.input[0], node.input[1]
                node.input[0], node.input[1] = b, a
                return
        raise LookupError(f"no {op}")

    return change


def constant(op: str, place: int, value: float) -> Fault:
    """The constant that is *op*'s input number *place* set to *value*."""

    def change(model: onnx.ModelProto) -> None:
        for node in model.graph.node:
            if node.op_type != op or len(node.input) <= place:
                continue
            for tensor in model.graph.initializer:
                if tensor.name == node.input[place]:
                    _set(tensor, np.full_like(numpy_helper.to_array(tensor), value))
                    return
            for other in model.graph.node:
                if other.op_type == "Constant" and node.input[place] in other.output:
                    tensor = other.attribute[0].t
                    _set(tensor, np.full_like(numpy_helper.to_array(tensor), value))
                    return
        raise LookupError(f"no {op} with a constant")

    return change


def norm_training(model: onnx.ModelProto) -> None:
    """BatchNormalization left in training mode."""
    for node in model.graph.node:
        if node.op_type == "BatchNormalization":
            kept = [a for a in node.attribute if a.name != "training_mode"]
            del node.attribute[:]
            node.attribute.extend([*kept, helper.make_attribute("training_mode", 1)])
            node.output.extend([f"{node.output[0]}_mean", f"{node.output[0]}_var"])
            return
    raise LookupError("no BatchNormalization")


def dropout_training(model: onnx.ModelProto) -> None:
    _append(model, 0, "Dropout", (np.array(0.3, np.float32), np.array(True)))


def norm_statistics(model: onnx.ModelProto) -> None:
    """Mean and bias of a BatchNormalization exchanged."""
    for node in model.graph.node:
        if node.op_type == "BatchNormalization":
            node.input[2], node.input[3] = node.input[3], node.input[2]
            return
    raise LookupError("no BatchNormalization")


def int64_clamped(model: onnx.ModelProto) -> None:
    found = False
    for tensor in model.graph.initializer:
        if tensor.data_type == TensorProto.INT64 and np.any(
            np.abs(numpy_helper.to_array(tensor).astype(np.float64)) > 2**30
        ):
            _set(tensor, np.clip(numpy_helper.to_array(tensor), -(2**30), 2**30))
            found = True
    if not found:
        raise LookupError("no large int64")


def branch_taken(model: onnx.ModelProto) -> None:
    """An If replaced by its first branch."""
    for place, node in enumerate(model.graph.node):
        if node.op_type == "If":
            body = next(a.g for a in node.attribute if a.name == "then_branch")
            nodes = [copy.deepcopy(n) for n in body.node]
            names = {o.name: final for o, final in zip(body.output, node.output, strict=True)}
            for inner in nodes:
                for outputs in (inner.output, inner.input):
                    for index, name in enumerate(outputs):
                        outputs[index] = names.get(name, name)
            model.graph.initializer.extend(body.initializer)
            rest = [*list(model.graph.node)[:place], *nodes, *list(model.graph.node)[place + 1 :]]
            kept = [copy.deepcopy(n) for n in rest]
            del model.graph.node[:]
            model.graph.node.extend(kept)
            return
    raise LookupError("no If")


# name: (kind, the fault)
FAULTS: dict[str, tuple[str, Fault]] = {
    "weight0": ("weight_1_percent", weight(0)),
    "weight1": ("weight_1_percent", weight(1)),
    "weight2": ("weight_1_percent", weight(2)),
    "swap_weights": ("weights_swapped", swap_weights),
    "half_weights": ("float16_overflow", half_weights),
    "transposed_weight": ("weights_transposed", transposed_weight),
    "transposed": ("output_transposed", output_transposed),
    "flipped": ("axis_changed", output_flipped),
    "emptied": ("output_emptied", output_emptied),
    "zeroed": ("constant_folded", output_zeroed),
    "dropped": ("output_dropped", output_dropped),
    "exchanged": ("output_swapped", outputs_exchanged),
    "renamed": ("output_renamed", output_renamed),
    "folded": ("constant_folded", constant_output(0.25)),
    "opset11": ("opset_changed", opset(11)),
    "opset12": ("opset_changed", opset(12)),
    "opset9": ("opset_changed", opset(9)),
    "softmax_axis": ("axis_changed", attribute("Softmax", "axis", 1)),
    "concat_axis": ("axis_changed", attribute("Concat", "axis", 2)),
    "conv_dilation": ("attribute_changed", attribute("Conv", "dilations", [2, 2])),
    "conv_pads": ("attribute_changed", attribute("Conv", "pads", [0, 0, 2, 2])),
    "lstm_reset": ("attribute_changed", attribute("GRU", "linear_before_reset", 0)),
    "norm_eps": ("attribute_changed", attribute("LayerNormalization", "epsilon", 0.1)),
    "leaky": ("attribute_changed", attribute("LeakyRelu", "alpha", 0.2)),
    "gemm": ("attribute_changed", attribute("Gemm", "alpha", 1.05)),
    "count_pad": ("pooling_changed", attribute("AveragePool", "count_include_pad", 0)),
    "max_average": (
        "pooling_changed",
        operator("MaxPool", "AveragePool", kernel_shape=[2, 2], strides=[2, 2]),
    ),
    "resize": ("attribute_changed", attribute("Resize", "coordinate_transformation_mode", "asymmetric")),
    "relu_abs": ("operator_changed", operator("Relu", "Abs")),
    "tanh_sigmoid": ("operator_changed", operator("Tanh", "Sigmoid")),
    "sigmoid_hard": ("operator_changed", operator("Sigmoid", "HardSigmoid")),
    "mean_sum": ("operator_changed", operator("ReduceMean", "ReduceSum", inputs=1)),
    "sub_swapped": ("operator_changed", swapped_inputs("Sub")),
    "div_swapped": ("operator_changed", swapped_inputs("Div")),
    "clip_max": ("constant_changed", constant("Clip", 2, 0.2)),
    "mul_constant": ("constant_changed", constant("Mul", 1, 0.9)),
    "add_constant": ("constant_changed", constant("Add", 1, 0.3)),
    "norm_training": ("eval_not_called", norm_training),
    "dropout": ("dropout_functional", dropout_training),
    "norm_statistics": ("constant_changed", norm_statistics),
    "int64": ("int64_clamped", int64_clamped),
    "branch": ("branch_baked", branch_taken),
}
