"""Faults of MNN, each as the smallest model that shows it: what docs/mnn-faults.md lists.

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


def _model(
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


def _floats(*shape: int, seed: int = 0) -> Any:
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def _ints(*shape: int, dtype: Any = np.int64, seed: int = 0) -> Any:
    return np.random.default_rng(seed).integers(-9, 10, shape).astype(dtype)


def _one(op_type: str, feeds: Arrays, **more: Any) -> tuple[onnx.ModelProto, list[Arrays]]:
    """A model of one node that takes *feeds* and then the weights; other keywords are its attributes."""
    weights, opset, gives = more.pop("weights", {}), more.pop("opset", 13), more.pop("gives", None)
    taken = more.pop("takes", [*feeds, *weights])
    return _model(
        [node(op_type, taken, list(gives or ("y",)), **more)], feeds, weights, opset=opset, gives=gives
    )


X = {"x": _floats(4, 6)}
IMAGE = {"x": _floats(1, 2, 6, 6)}
VOLUME = {"x": _floats(2, 2, 4, 4, 4)}
NANS = np.float32([np.nan, 2, -3])
LONG, BOOL, BYTE = TensorProto.INT64, TensorProto.BOOL, TensorProto.UINT8

PRODUCTS = (
    Fault(
        "two matrices of int32 or int64",
        "multiplies the bits as if they were float32",
        "the product of the integers",
        "integer-matmul",
        *_one("MatMul", {"a": _ints(4, 5), "b": _ints(5, 3)}, gives={"y": LONG}),
    ),
    Fault(
        "two vectors",
        "writes beyond its memory: some runs crash",
        "their inner product",
        "matmul-vector",
        *_one("MatMul", {"a": _floats(5), "b": _floats(5, seed=1)}),
        runs=40,
    ),
    Fault(
        "a tensor of three dimensions with a constant vector",
        "gives no output",
        "the product",
        "matmul-vector",
        *_one("MatMul", {"x": _floats(2, 4, 5)}, weights={"w": _floats(5)}),
    ),
    Fault(
        "transA=1 with a constant B",
        "does not transpose A",
        "A transposed",
        "gemm-trans-a",
        *_one("Gemm", {"x": _floats(4, 4)}, weights={"w": _floats(4, 3)}, transA=1),
    ),
    Fault(
        "a repeated subscript, ii->i",
        "keeps both axes",
        "the diagonal",
        "einsum-forms",
        *_one("Einsum", {"x": _floats(4, 4)}, equation="ii->i"),
    ),
    Fault(
        "two operands of int32 or int64",
        "multiplies the bits as if they were float32",
        "the product of the integers",
        "integer-matmul",
        *_one("Einsum", {"a": _ints(4, 5), "b": _ints(5, 3)}, equation="ij,jk->ik", gives={"y": LONG}),
    ),
)

ARITHMETIC = (
    Fault(
        "two negative floats",
        "the opposite answer (x86)",
        "a < b",
        "less-negative",
        *_one(
            "Less",
            {"a": -1 - np.abs(_floats(4, 6)), "b": -1 - np.abs(_floats(4, 6, seed=1))},
            gives={"y": BOOL},
        ),
    ),
    Fault(
        "a NaN, or 0 and -0",
        "compares the bits",
        "a NaN equals nothing, 0 equals -0",
        "equal-bits",
        *_one(
            "Equal",
            {"a": np.float32([np.nan, 0.0, 1.0]), "b": np.float32([np.nan, -0.0, 1.0])},
            gives={"y": BOOL},
        ),
    ),
    Fault(
        "a half",
        "rounds away from zero",
        "rounds to the even neighbour",
        "round-half",
        *_one("Round", {"x": np.float32([0.5, 1.5, 2.5, -0.5, -2.5])}),
    ),
    Fault(
        "fmod=1 on floats of different signs",
        "the sign of the divisor",
        "the sign of the dividend",
        "mod-float",
        *_one("Mod", {"a": np.float32([5.3, -5.3, 4.0]), "b": np.float32([-3, 3, -1.5])}, fmod=1),
    ),
    Fault(
        "a float to an integer power",
        "gives no output",
        "the power",
        "pow-types",
        *_one("Pow", {"x": np.abs(_floats(4))}, weights={"n": np.int64([2, 3, 1, 2])}),
    ),
    Fault(
        "one operand",
        "crashes the converter",
        "the operand",
        "few-operands",
        *_one("Max", X),
    ),
    Fault(
        "negative floats, each operand expanded to meet the other",
        "the opposite answer",
        "a > b",
        "compare-broadcast",
        *_one("Greater", {"a": _floats(7, 1), "b": _floats(14, seed=1)}, gives={"y": BOOL}),
    ),
    Fault(
        "two operands",
        "gives no output",
        "their mean",
        "few-operands",
        *_one("Mean", {"a": _floats(4), "b": _floats(4, seed=1)}),
    ),
    Fault(
        "the exact form, opset 20",
        "an approximation, off by up to 4.7e-4",
        "x (1 + erf(x / sqrt 2)) / 2",
        "gelu-operator",
        *_one("Gelu", {"x": np.linspace(-4, -3, 20, dtype=np.float32)}, opset=20),
    ),
    Fault(
        "NaN",
        "0",
        "NaN",
        "",
        *_one("Relu", {"x": NANS}),
    ),
    Fault(
        "NaN",
        "0",
        "NaN",
        "",
        *_one("Abs", {"x": NANS}),
    ),
    Fault(
        "NaN",
        "0",
        "NaN",
        "",
        *_one("Sign", {"x": NANS}),
    ),
    Fault(
        "NaN in the first operand",
        "the second operand",
        "NaN",
        "",
        *_one("Max", {"a": NANS, "b": np.float32([1, 2, 3])}),
    ),
    Fault(
        "NaN",
        "the upper bound",
        "NaN",
        "",
        *_one("Clip", {"x": NANS}, weights={"low": np.float32(-1), "high": np.float32(1)}),
    ),
    Fault(
        "an integer to bool",
        "the integer, which Not and And compute with",
        "true, unless it is 0",
        "cast-forms",
        *_one("Cast", {"x": _ints(2, 3)}, to=BOOL, gives={"y": BOOL}),
    ),
    Fault(
        "min above max",
        "the lower bound",
        "the upper bound",
        "clip-bounds",
        *_one("Clip", X, weights={"low": np.float32(1), "high": np.float32(-1)}),
    ),
    Fault(
        "uint8 operands",
        "crashes",
        "the sum",
        "narrow-integer-arithmetic",
        *_one("Add", {"a": np.uint8([1, 2, 3]), "b": np.uint8([4, 5, 6])}, opset=14, gives={"y": BYTE}),
    ),
    Fault(
        "negative values",
        "leaves them as they are",
        "shrinks them",
        "shrink",
        *_one("Shrink", X, lambd=0.5, bias=0.5),
    ),
    Fault(
        "int64 constants beyond 2^30",
        "clamps them to 2^30",
        "the constants",
        "large-integers",
        *_one(
            "Add", {"x": _ints(3)}, weights={"k": np.int64([2**30 + 7, 5, -(2**30) - 9])}, gives={"y": LONG}
        ),
    ),
    Fault(
        "a float between -1 and 1 to bool",
        "false",
        "true, unless it is 0",
        "cast-forms",
        *_one("Cast", {"x": np.float32([0.3, 0, -0.7, 2])}, to=BOOL, gives={"y": BOOL}),
    ),
    Fault(
        "int8 constants kept in int32_data",
        "decodes them wrongly",
        "the constants",
        "int32-data",
        *_model(
            [node("Cast", ["w"], ["c"], to=TensorProto.FLOAT), node("Add", ["x", "c"], ["y"])],
            {"x": _floats(3)},
            {"w": helper.make_tensor("w", TensorProto.INT8, [3], [-3, 5, 7])},
        ),
    ),
)

WINDOWS = (
    Fault(
        "no strides, in two dimensions",
        "divides by zero",
        "strides of 1",
        "pool-strides",
        *_one("MaxPool", IMAGE, kernel_shape=[2, 2]),
    ),
    Fault(
        "dilations",
        "does not read them",
        "windows with gaps",
        "pool-dilations",
        *_one("MaxPool", IMAGE, kernel_shape=[2, 2], strides=[1, 1], dilations=[2, 2]),
    ),
    Fault(
        "three dimensions, a batch of 2",
        "pools the first of the batch alone",
        "pools every one",
        "pool-3d",
        *_one("AveragePool", VOLUME, kernel_shape=[2, 2, 2], strides=[2, 2, 2], pads=[0] * 6),
    ),
    Fault(
        "ceil_mode=1 with a last window that begins in the padding",
        "counts it",
        "leaves it out",
        "pool-ceil",
        *_one(
            "MaxPool",
            {"x": _floats(1, 2, 4, 4)},
            kernel_shape=[1, 1],
            strides=[2, 2],
            ceil_mode=1,
            pads=[0, 0, 0, 0],
        ),
    ),
    Fault(
        "ceil_mode=1 in three dimensions",
        "does not read it",
        "a last window that is not whole",
        "pool-ceil",
        *_one("MaxPool", VOLUME, kernel_shape=[3] * 3, strides=[2] * 3, pads=[0] * 6, ceil_mode=1),
    ),
    Fault(
        "the indices of padded windows",
        "values and indices that are not there",
        "those of the image",
        "pool-indices",
        *_one(
            "MaxPool",
            {"x": _floats(1, 1, 4, 4)},
            kernel_shape=[2, 2],
            strides=[2, 2],
            pads=[1] * 4,
            gives={"y": TensorProto.FLOAT, "i": LONG},
        ),
    ),
    Fault(
        "indices in three dimensions",
        "crashes",
        "the indices",
        "",
        *_one(
            "MaxPool",
            VOLUME,
            kernel_shape=[2] * 3,
            strides=[2] * 3,
            pads=[0] * 6,
            gives={"y": TensorProto.FLOAT, "i": LONG},
        ),
    ),
    Fault(
        "uneven pads",
        "pads evenly",
        "these pads",
        "pool-auto-pad",
        *_one("LpPool", {"x": _floats(1, 2, 4, 4)}, kernel_shape=[2, 2], strides=[1, 1], pads=[1, 0, 0, 1]),
    ),
    Fault(
        "computed weights in three dimensions",
        "a size of 0",
        "the convolution",
        "",
        *_one("Conv", {**VOLUME, "w": _floats(3, 2, 2, 2, 2)}),
    ),
    Fault(
        "mode=linear in three dimensions",
        "crashes, or gives no output",
        "the trilinear interpolation",
        "",
        *_one(
            "Resize",
            VOLUME,
            weights={"s": np.float32([1, 1, 2, 2, 2])},
            takes=["x", "", "s"],
            mode="linear",
        ),
    ),
    Fault(
        "nearest_mode=ceil, half_pixel",
        "rounds down",
        "rounds up",
        "resize-forms",
        *_one(
            "Resize",
            IMAGE,
            weights={"s": np.float32([1, 1, 2, 2])},
            takes=["x", "", "s"],
            mode="nearest",
            nearest_mode="ceil",
        ),
    ),
    Fault(
        "auto_pad=SAME_LOWER",
        "pads as SAME_UPPER",
        "pads the lower end",
        "pool-auto-pad",
        *_one("AveragePool", IMAGE, kernel_shape=[2, 2], strides=[1, 1], auto_pad="SAME_LOWER"),
    ),
    Fault(
        "one dimension, as an output",
        "a fourth dimension of size 1",
        "three dimensions",
        "conv1d-output",
        *_one("Conv", {"x": _floats(1, 2, 8)}, weights={"w": _floats(3, 2, 3)}),
    ),
    Fault(
        "dilations in three dimensions",
        "does not read them",
        "a kernel with gaps",
        "conv3d-forms",
        *_one("Conv", VOLUME, weights={"w": _floats(3, 2, 2, 2, 2)}, dilations=[2, 2, 2]),
    ),
    Fault(
        "three dimensions",
        "a size of 0",
        "the transposed convolution",
        "conv3d-forms",
        *_one("ConvTranspose", VOLUME, weights={"w": _floats(2, 3, 2, 2, 2)}),
    ),
    Fault(
        "output_shape that makes the padding odd",
        "pads the opposite end",
        "the larger half at the beginning",
        "deconv-padding",
        *_one(
            "ConvTranspose",
            {"x": _floats(1, 2, 5, 5)},
            weights={"w": _floats(2, 3, 3, 3)},
            strides=[2, 2],
            output_shape=[10, 10],
        ),
    ),
    Fault(
        "mode=cubic, half_pixel, growing",
        "other numbers",
        "the cubic interpolation",
        "resize-forms",
        *_one(
            "Resize",
            IMAGE,
            weights={"s": np.float32([1, 1, 2, 2])},
            takes=["x", "", "s"],
            mode="cubic",
            coordinate_transformation_mode="half_pixel",
        ),
    ),
    Fault(
        "mode=bicubic",
        "other numbers",
        "the cubic interpolation",
        "grid-sample-forms",
        *_one(
            "GridSample",
            {"x": _floats(1, 2, 6, 6), "g": np.clip(_floats(1, 3, 3, 2), -1, 1)},
            opset=16,
            mode="bicubic",
        ),
    ),
)

NORMS = (
    Fault(
        "no axis",
        "reads a garbage axis, or crashes the converter",
        "the last axis",
        "logsoftmax-axis",
        *_one("LogSoftmax", {"x": _floats(2, 3, 4)}),
    ),
    Fault(
        "no axis, opset 11",
        "the last axis",
        "all axes from the second on",
        "softmax-axis",
        *_one("Softmax", {"x": _floats(2, 3, 4)}, opset=11),
    ),
    Fault(
        "a scale that is an input",
        "crashes the converter",
        "the norm",
        "computed-statistics",
        *_one(
            "BatchNormalization",
            {"x": _floats(1, 2, 4, 4), "s": _floats(2)},
            weights={"b": _floats(2), "m": _floats(2), "v": np.float32([1, 2])},
        ),
    ),
    Fault(
        "a slope for each column",
        "takes it as one for each channel",
        "a slope for each column",
        "prelu-slope",
        *_one("PRelu", {"x": _floats(1, 2, 3, 4)}, weights={"s": np.abs(_floats(4))}),
    ),
    Fault(
        "ignore_index, with the mean",
        "counts the ignored ones",
        "the mean of the others",
        "loss-forms",
        *_one("SoftmaxCrossEntropyLoss", {"x": _floats(3, 4), "t": np.int64([0, 1, 2])}, ignore_index=1),
    ),
    Fault(
        "its mask",
        "gives no output",
        "all true",
        "lone-dropout",
        *_one("Dropout", {"x": _floats(3, 4)}, gives={"y": TensorProto.FLOAT, "m": BOOL}),
    ),
    Fault(
        "a vector of zeros",
        "NaN",
        "zeros",
        "lp-of-zeros",
        *_one("LpNormalization", {"x": np.zeros((2, 3), np.float32)}, axis=1, p=2),
    ),
    Fault(
        "linear_before_reset=0",
        "computes it as 1",
        "the reset before the product",
        "gru-linear-before-reset",
        *_model(
            [node("GRU", ["x", "w", "r", "b"], ["y", "h"], hidden_size=4)],
            {"x": _floats(5, 1, 3)},
            {"w": _floats(1, 12, 3), "r": _floats(1, 12, 4, seed=1), "b": _floats(1, 24, seed=2)},
        ),
    ),
    Fault(
        "direction=reverse",
        "computes it as forward",
        "from the last step to the first",
        "recurrent-reverse",
        *_model(
            [node("RNN", ["x", "w", "r"], ["y", "h"], hidden_size=4, direction="reverse")],
            {"x": _floats(5, 1, 3)},
            {"w": _floats(1, 4, 3), "r": _floats(1, 4, 4, seed=1)},
        ),
    ),
    Fault(
        "the first output alone",
        "crashes the converter",
        "the states of all steps",
        "recurrent-outputs",
        *_model(
            [node("LSTM", ["x", "w", "r"], ["y"], hidden_size=4)],
            {"x": _floats(5, 1, 3)},
            {"w": _floats(1, 16, 3), "r": _floats(1, 16, 4, seed=1)},
        ),
    ),
)

INDEXING = (
    Fault(
        "axes as an input (opset 18)",
        "reduces over all",
        "reduces over the axes",
        "reduce-axes",
        *_one("ReduceL2", X, weights={"a": np.int64([1])}, opset=18, keepdims=0),
    ),
    Fault(
        "select_last_index=1",
        "the first of equals",
        "the last of equals",
        "select-last-index",
        *_one(
            "ArgMax",
            {"x": np.float32([[1, 3, 3], [2, 2, 0]])},
            axis=1,
            select_last_index=1,
            gives={"y": LONG},
        ),
    ),
    Fault(
        "negative indices",
        "does not count them from the end",
        "counts them from the end",
        "negative-indices",
        *_one("GatherElements", X, weights={"i": np.int64([[-1, -2], [0, -3], [1, 2], [-6, 5]])}, axis=1),
    ),
    Fault(
        "integers",
        "compares their bits as if they were float32",
        "the place of the largest",
        "argmax-integers",
        *_one("ArgMax", {"x": -1 - np.abs(_ints(4, 5))}, axis=1, gives={"y": LONG}),
    ),
    Fault(
        "negative integers",
        "the place of the largest",
        "the place of the smallest",
        "argmax-integers",
        *_one("ArgMin", {"x": -1 - np.abs(_ints(4, 5))}, axis=1, gives={"y": LONG}),
    ),
    Fault(
        "noop_with_empty_axes=1 without axes",
        "reduces over all",
        "the input",
        "reduce-no-axes",
        *_one("ReduceSum", X, noop_with_empty_axes=1),
    ),
    Fault(
        "keepdims=1",
        "takes the axis out",
        "keeps it, of size 1",
        "reduce-keepdims",
        *_one("ReduceL1", {"x": _floats(4, 6)}, axes=[1]),
    ),
    Fault(
        "an axis",
        "the values of the whole tensor",
        "the different rows",
        "",
        *_one("Unique", {"x": np.float32([[3, 1], [3, 1], [2, 2]])}, axis=0),
    ),
    Fault(
        "a part of size 0",
        "whatever its memory held, or no output",
        "the parts",
        "empty-parts",
        *_model(
            [node("Split", ["x", "s"], ["z", "w"], axis=1), node("Concat", ["w", "z"], ["y"], axis=1)],
            {"x": _floats(2, 3)},
            {"s": np.int64([0, 3])},
        ),
    ),
    Fault(
        "behind a Squeeze, whose result something else uses",
        "the shape before the Squeeze",
        "the shape behind it",
        "",
        *_model(
            [
                node("Neg", ["x"], ["n"]),
                node("Squeeze", ["n", "k"], ["s"]),
                node("LeakyRelu", ["s"], ["y"]),
                node("Sub", ["s", "n"], ["z"]),
            ],
            {"x": _floats(1, 12)},
            {"k": np.int64([0])},
            gives={"y": TensorProto.FLOAT, "z": TensorProto.FLOAT},
        ),
    ),
    Fault(
        "reduction=mul",
        "overwrites",
        "multiplies",
        "scatter-reduction",
        *_one(
            "ScatterND",
            {"x": _floats(4)},
            weights={"i": np.int64([[0], [0]]), "u": _floats(2)},
            opset=16,
            reduction="mul",
        ),
    ),
    Fault(
        "reduction=add",
        "overwrites",
        "adds",
        "scatter-reduction",
        *_one(
            "ScatterElements",
            {"x": _floats(3, 3)},
            weights={"i": np.int64([[0, 0, 1]]), "u": _floats(1, 3)},
            opset=16,
            axis=1,
            reduction="add",
        ),
    ),
    Fault(
        "a step of -1 in four dimensions or more",
        "crashes, or other numbers",
        "the order reversed",
        "slice-backwards",
        *_one(
            "Slice",
            {"x": _floats(2, 3, 4, 5)},
            weights={"s": np.int64([4]), "e": np.int64([-7]), "a": np.int64([3]), "t": np.int64([-1])},
        ),
        runs=5,
    ),
    Fault(
        "num_outputs, the last part smaller (opset 18)",
        "parts of the smaller size",
        "the last part alone is smaller",
        "uneven-split",
        *_one(
            "Split",
            {"x": _floats(7)},
            opset=18,
            num_outputs=2,
            gives={"y": TensorProto.FLOAT, "z": TensorProto.FLOAT},
        ),
    ),
    Fault(
        "no axis",
        "the new axis is not the last",
        "the last axis",
        "one-hot",
        *_one(
            "OneHot", {"x": np.int64([[1, 0], [2, 1]])}, weights={"d": np.int64(3), "v": np.float32([0, 1])}
        ),
    ),
    Fault(
        "axes (opset 18)",
        "crashes, or gives no output",
        "pads these axes",
        "pad-forms",
        *_one(
            "Pad", X, weights={"p": np.int64([1, 2]), "a": np.int64([1])}, takes=["x", "p", "", "a"], opset=18
        ),
    ),
    Fault(
        "no value",
        "uninitialised memory",
        "zeros",
        "constant-of-shape",
        *_model(
            [
                node("Shape", ["x"], ["s"]),
                node("ConstantOfShape", ["s"], ["c"]),
                node("Concat", ["x", "c"], ["y"], axis=0),
            ],
            X,
        ),
    ),
)

FAULTS: tuple[Fault, ...] = (*PRODUCTS, *ARITHMETIC, *WINDOWS, *NORMS, *INDEXING)
