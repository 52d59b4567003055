"""Since which opset an ONNX operator has the form that a rule reads or writes.

After ONNX's operator documents (``docs/Changelog.md``).
"""

from __future__ import annotations

# The opset from which the axes, bounds, sizes or pads of an operator are inputs; before, they are attributes.
INPUTS_SINCE = {
    "Reshape": 5,
    "Slice": 10,
    "Pad": 11,
    "Dropout": 12,
    "ReduceSum": 13,
    "Split": 13,
    "Squeeze": 13,
    "Unsqueeze": 13,
    "ReduceL1": 18,
    "ReduceL2": 18,
    "ReduceLogSum": 18,
    "ReduceLogSumExp": 18,
    "ReduceMax": 18,
    "ReduceMean": 18,
    "ReduceMin": 18,
    "ReduceProd": 18,
    "ReduceSumSquare": 18,
    "DFT": 20,
}

# The opset that brought an operator.
SINCE = {
    "Expand": 8,
    "OneHot": 9,
    "Where": 9,
    "ConvInteger": 10,
    "Mod": 10,
    "Range": 11,
    "Round": 11,
    "ScatterND": 11,
    "GreaterOrEqual": 12,
}

BROADCASTING = 7  # operands broadcast as NumPy's do; before, by attributes
DROPOUT_IDENTITY = 7  # Dropout does nothing at inference, without saying so
ANY_CONSTANT = 9  # a Constant holds any dtype; before, floats alone
BATCH_NORM_PER_CHANNEL = 9  # BatchNormalization is per channel; before, unless `spatial` is 0
SCAN_UNBATCHED = 9  # Scan has neither a batch of its own nor lengths
DROPOUT_BOOL_MASK = 10  # the mask of Dropout is of booleans; before, of floats
EQUAL_FLOATS = 11  # Equal takes floats
RESIZE_COORDINATES = 11  # Resize has its coordinate modes
INTEGER_BOUNDS = 12  # Clip, Max and Min take integers
ONE_AXIS = 13  # Softmax, LogSoftmax and Hardmax go over one axis; before, over all from it on
TRAINING_MODE = 14  # BatchNormalization has `training_mode`; before, its outputs said so
