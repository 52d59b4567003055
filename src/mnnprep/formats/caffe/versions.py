"""Names of layers across Caffe's three versions, as tables.

Format facts: caffe.proto's V1LayerParameter.LayerType and upgrade_proto.cpp's rules (V0 types, which field
goes where).
"""

from __future__ import annotations

# V1: number -> (name in text, V2's name)
V1_TYPES: dict[int, tuple[str, str]] = {
    1: ("ACCURACY", "Accuracy"),
    2: ("BNLL", "BNLL"),
    3: ("CONCAT", "Concat"),
    4: ("CONVOLUTION", "Convolution"),
    5: ("DATA", "Data"),
    6: ("DROPOUT", "Dropout"),
    7: ("EUCLIDEAN_LOSS", "EuclideanLoss"),
    8: ("FLATTEN", "Flatten"),
    9: ("HDF5_DATA", "HDF5Data"),
    10: ("HDF5_OUTPUT", "HDF5Output"),
    11: ("IM2COL", "Im2col"),
    12: ("IMAGE_DATA", "ImageData"),
    13: ("INFOGAIN_LOSS", "InfogainLoss"),
    14: ("INNER_PRODUCT", "InnerProduct"),
    15: ("LRN", "LRN"),
    16: ("MULTINOMIAL_LOGISTIC_LOSS", "MultinomialLogisticLoss"),
    17: ("POOLING", "Pooling"),
    18: ("RELU", "ReLU"),
    19: ("SIGMOID", "Sigmoid"),
    20: ("SOFTMAX", "Softmax"),
    21: ("SOFTMAX_LOSS", "SoftmaxWithLoss"),
    22: ("SPLIT", "Split"),
    23: ("TANH", "TanH"),
    24: ("WINDOW_DATA", "WindowData"),
    25: ("ELTWISE", "Eltwise"),
    26: ("POWER", "Power"),
    27: ("SIGMOID_CROSS_ENTROPY_LOSS", "SigmoidCrossEntropyLoss"),
    28: ("HINGE_LOSS", "HingeLoss"),
    29: ("MEMORY_DATA", "MemoryData"),
    30: ("ARGMAX", "ArgMax"),
    31: ("THRESHOLD", "Threshold"),
    32: ("DUMMY_DATA", "DummyData"),
    33: ("SLICE", "Slice"),
    34: ("MVN", "MVN"),
    35: ("ABSVAL", "AbsVal"),
    36: ("SILENCE", "Silence"),
    37: ("CONTRASTIVE_LOSS", "ContrastiveLoss"),
    38: ("EXP", "Exp"),
    39: ("DECONVOLUTION", "Deconvolution"),
}
V1_NAMES = dict(V1_TYPES.values())

V0_TYPES: dict[str, str] = {
    "accuracy": "Accuracy",
    "bnll": "BNLL",
    "concat": "Concat",
    "conv": "Convolution",
    "data": "Data",
    "dropout": "Dropout",
    "euclidean_loss": "EuclideanLoss",
    "flatten": "Flatten",
    "hdf5_data": "HDF5Data",
    "hdf5_output": "HDF5Output",
    "im2col": "Im2col",
    "images": "ImageData",
    "infogain_loss": "InfogainLoss",
    "innerproduct": "InnerProduct",
    "lrn": "LRN",
    "multinomial_logistic_loss": "MultinomialLogisticLoss",
    "pool": "Pooling",
    "relu": "ReLU",
    "sigmoid": "Sigmoid",
    "softmax": "Softmax",
    "softmax_loss": "SoftmaxWithLoss",
    "split": "Split",
    "tanh": "TanH",
    "window_data": "WindowData",
}

# V0's flat field -> its name in the parameter message of the layer's type
_CONVOLUTION = {
    "num_output": "num_output",
    "biasterm": "bias_term",
    "pad": "pad",
    "kernelsize": "kernel_size",
    "group": "group",
    "stride": "stride",
}
_DATA = {"source": "source", "batchsize": "batch_size", "rand_skip": "rand_skip"}
V0_PARAMETERS: dict[str, tuple[str, dict[str, str]]] = {
    "conv": ("convolution_param", _CONVOLUTION),
    "innerproduct": ("inner_product_param", {"num_output": "num_output", "biasterm": "bias_term"}),
    "pool": (
        "pooling_param",
        {"pool": "pool", "pad": "pad", "kernelsize": "kernel_size", "stride": "stride"},
    ),
    "lrn": ("lrn_param", {"local_size": "local_size", "alpha": "alpha", "beta": "beta", "k": "k"}),
    "dropout": ("dropout_param", {"dropout_ratio": "dropout_ratio"}),
    "concat": ("concat_param", {"concat_dim": "concat_dim"}),
    "data": ("data_param", _DATA),
    "images": ("image_data_param", {**_DATA, "new_height": "new_height", "new_width": "new_width"}),
    "window_data": ("window_data_param", _DATA),
    "hdf5_data": ("hdf5_data_param", _DATA),
}
V0_TRANSFORM = {"scale": "scale", "meanfile": "mean_file", "cropsize": "crop_size", "mirror": "mirror"}

DATA_TYPES = frozenset(
    {"Data", "ImageData", "HDF5Data", "WindowData", "MemoryData", "DummyData", "AnnotatedData", "VideoData"}
)
# A loss, and the layer that gives the same scores at inference ("" where its first bottom is the result).
LOSSES: dict[str, str] = {
    "SoftmaxWithLoss": "Softmax",
    "SigmoidCrossEntropyLoss": "Sigmoid",
    "InfogainLoss": "Softmax",
    "EuclideanLoss": "",
    "HingeLoss": "",
    "ContrastiveLoss": "",
    "MultinomialLogisticLoss": "",
    "MultiBoxLoss": "",
    "SmoothL1Loss": "",
    "TripletLoss": "",
}
MEASURES = frozenset(
    {"Accuracy", "Silence", "HDF5Output", "DetectionEvaluate"}
)  # nothing of the result depends on them
TRANSPARENT = frozenset({"Dropout", "Split"})  # the identity at inference
TRAINING_TYPES = frozenset({*DATA_TYPES, *LOSSES, *MEASURES})
