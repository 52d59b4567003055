"""Reductions, indices and shapes that MNN gets wrong."""

from __future__ import annotations

import numpy as np
from onnx import TensorProto

from evaluation.mnn_faults.fault import LONG, Fault, X, floats, ints, model_of, node, one

INDEXING = (
    Fault(
        "axes as an input (opset 18)",
        "reduces over all",
        "reduces over the axes",
        "reduce-axes",
        *one("ReduceL2", X, weights={"a": np.int64([1])}, opset=18, keepdims=0),
    ),
    Fault(
        "select_last_index=1",
        "the first of equals",
        "the last of equals",
        "select-last-index",
        *one(
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
        *one("GatherElements", X, weights={"i": np.int64([[-1, -2], [0, -3], [1, 2], [-6, 5]])}, axis=1),
    ),
    Fault(
        "integers",
        "compares their bits as if they were float32",
        "the place of the largest",
        "argmax-integers",
        *one("ArgMax", {"x": -1 - np.abs(ints(4, 5))}, axis=1, gives={"y": LONG}),
    ),
    Fault(
        "negative integers",
        "the place of the largest",
        "the place of the smallest",
        "argmax-integers",
        *one("ArgMin", {"x": -1 - np.abs(ints(4, 5))}, axis=1, gives={"y": LONG}),
    ),
    Fault(
        "noop_with_empty_axes=1 without axes",
        "reduces over all",
        "the input",
        "reduce-no-axes",
        *one("ReduceSum", X, noop_with_empty_axes=1),
    ),
    Fault(
        "keepdims=1",
        "takes the axis out",
        "keeps it, of size 1",
        "reduce-keepdims",
        *one("ReduceL1", {"x": floats(4, 6)}, axes=[1]),
    ),
    Fault(
        "an axis",
        "the values of the whole tensor",
        "the different rows",
        "",
        *one("Unique", {"x": np.float32([[3, 1], [3, 1], [2, 2]])}, axis=0),
    ),
    Fault(
        "a part of size 0",
        "whatever its memory held, or no output",
        "the parts",
        "empty-parts",
        *model_of(
            [node("Split", ["x", "s"], ["z", "w"], axis=1), node("Concat", ["w", "z"], ["y"], axis=1)],
            {"x": floats(2, 3)},
            {"s": np.int64([0, 3])},
        ),
    ),
    Fault(
        "behind a Squeeze, whose result something else uses",
        "the shape before the Squeeze",
        "the shape behind it",
        "",
        *model_of(
            [
                node("Neg", ["x"], ["n"]),
                node("Squeeze", ["n", "k"], ["s"]),
                node("LeakyRelu", ["s"], ["y"]),
                node("Sub", ["s", "n"], ["z"]),
            ],
            {"x": floats(1, 12)},
            {"k": np.int64([0])},
            gives={"y": TensorProto.FLOAT, "z": TensorProto.FLOAT},
        ),
    ),
    Fault(
        "reduction=mul",
        "overwrites",
        "multiplies",
        "scatter-reduction",
        *one(
            "ScatterND",
            {"x": floats(4)},
            weights={"i": np.int64([[0], [0]]), "u": floats(2)},
            opset=16,
            reduction="mul",
        ),
    ),
    Fault(
        "reduction=add",
        "overwrites",
        "adds",
        "scatter-reduction",
        *one(
            "ScatterElements",
            {"x": floats(3, 3)},
            weights={"i": np.int64([[0, 0, 1]]), "u": floats(1, 3)},
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
        *one(
            "Slice",
            {"x": floats(2, 3, 4, 5)},
            weights={"s": np.int64([4]), "e": np.int64([-7]), "a": np.int64([3]), "t": np.int64([-1])},
        ),
        runs=5,
    ),
    Fault(
        "num_outputs, the last part smaller (opset 18)",
        "parts of the smaller size",
        "the last part alone is smaller",
        "uneven-split",
        *one(
            "Split",
            {"x": floats(7)},
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
        *one(
            "OneHot", {"x": np.int64([[1, 0], [2, 1]])}, weights={"d": np.int64(3), "v": np.float32([0, 1])}
        ),
    ),
    Fault(
        "axes (opset 18)",
        "crashes, or gives no output",
        "pads these axes",
        "pad-forms",
        *one(
            "Pad", X, weights={"p": np.int64([1, 2]), "a": np.int64([1])}, takes=["x", "p", "", "a"], opset=18
        ),
    ),
    Fault(
        "no value",
        "uninitialised memory",
        "zeros",
        "constant-of-shape",
        *model_of(
            [
                node("Shape", ["x"], ["s"]),
                node("ConstantOfShape", ["s"], ["c"]),
                node("Concat", ["x", "c"], ["y"], axis=0),
            ],
            X,
        ),
    ),
)
