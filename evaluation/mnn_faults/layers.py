"""Norms, losses and recurrent layers that MNN gets wrong."""

from __future__ import annotations

import numpy as np
from onnx import TensorProto

from evaluation.mnn_faults.fault import BOOL, Fault, floats, model_of, node, one

NORMS = (
    Fault(
        "no axis",
        "reads a garbage axis, or crashes the converter",
        "the last axis",
        "logsoftmax-axis",
        *one("LogSoftmax", {"x": floats(2, 3, 4)}),
    ),
    Fault(
        "no axis, opset 11",
        "the last axis",
        "all axes from the second on",
        "softmax-axis",
        *one("Softmax", {"x": floats(2, 3, 4)}, opset=11),
    ),
    Fault(
        "a scale that is an input",
        "crashes the converter",
        "the norm",
        "computed-statistics",
        *one(
            "BatchNormalization",
            {"x": floats(1, 2, 4, 4), "s": floats(2)},
            weights={"b": floats(2), "m": floats(2), "v": np.float32([1, 2])},
        ),
    ),
    Fault(
        "a slope for each column",
        "takes it as one for each channel",
        "a slope for each column",
        "prelu-slope",
        *one("PRelu", {"x": floats(1, 2, 3, 4)}, weights={"s": np.abs(floats(4))}),
    ),
    Fault(
        "ignore_index, with the mean",
        "counts the ignored ones",
        "the mean of the others",
        "loss-forms",
        *one("SoftmaxCrossEntropyLoss", {"x": floats(3, 4), "t": np.int64([0, 1, 2])}, ignore_index=1),
    ),
    Fault(
        "its mask",
        "gives no output",
        "all true",
        "lone-dropout",
        *one("Dropout", {"x": floats(3, 4)}, gives={"y": TensorProto.FLOAT, "m": BOOL}),
    ),
    Fault(
        "a vector of zeros",
        "NaN",
        "zeros",
        "lp-of-zeros",
        *one("LpNormalization", {"x": np.zeros((2, 3), np.float32)}, axis=1, p=2),
    ),
    Fault(
        "linear_before_reset=0",
        "computes it as 1",
        "the reset before the product",
        "gru-linear-before-reset",
        *model_of(
            [node("GRU", ["x", "w", "r", "b"], ["y", "h"], hidden_size=4)],
            {"x": floats(5, 1, 3)},
            {"w": floats(1, 12, 3), "r": floats(1, 12, 4, seed=1), "b": floats(1, 24, seed=2)},
        ),
    ),
    Fault(
        "direction=reverse",
        "computes it as forward",
        "from the last step to the first",
        "recurrent-reverse",
        *model_of(
            [node("RNN", ["x", "w", "r"], ["y", "h"], hidden_size=4, direction="reverse")],
            {"x": floats(5, 1, 3)},
            {"w": floats(1, 4, 3), "r": floats(1, 4, 4, seed=1)},
        ),
    ),
    Fault(
        "the first output alone",
        "crashes the converter",
        "the states of all steps",
        "recurrent-outputs",
        *model_of(
            [node("LSTM", ["x", "w", "r"], ["y"], hidden_size=4)],
            {"x": floats(5, 1, 3)},
            {"w": floats(1, 16, 3), "r": floats(1, 16, 4, seed=1)},
        ),
    ),
)
