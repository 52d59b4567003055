"""What a ``.mnn`` file holds, read from its bytes; MNN is not loaded.

Format facts: MNN's schema/default/MNN.fbs, CaffeOp.fbs and TensorflowOp.fbs (tables, the order of their fields, operator
numbers).  The version is that of the converter (``extraInfo``), absent in files of before 1.2.
"""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import msgspec

from mnnprep.errors import RefusedError
from mnnprep.formats.mnn_file.flatbuffer import Table, root
from mnnprep.formats.tensor_info import TensorInfo

# Fields of Net, ExtraInfo, Op, SubGraphProto, Input, Convolution2D and IDSTQuan
EXTRA_INFO, OPLISTS, OUTPUT_NAMES, SOURCE, TENSOR_NAMES, USAGE, SUBGRAPHS, UUID = 2, 3, 4, 6, 7, 9, 10, 11
VERSION = 2
INPUTS, MAIN_TYPE, MAIN, NAME, OUTPUTS, TYPE = 0, 1, 2, 3, 4, 5
NODES = 4
WEIGHT, BIAS, QUANTIZED = 1, 2, 3
BUFFER, QUANT_TYPE = 0, 2
INPUT_DIMS, INPUT_DTYPE, INPUT_FORMAT = 0, 1, 2
CONVOLUTION2D = 9  # in the union OpParameter
HALF = 3  # IDSTQuan.type: the weights are kept as float16

SOURCES = ("CAFFE", "TENSORFLOW", "TFLITE", "ONNX", "TORCH")
USAGES = ("INFERENCE", "TRAIN", "INFERENCE_STATIC")
LAYOUTS = ("NCHW", "NHWC", "NC4HW4", "NHWC4", "UNKNOWN")
DTYPES = {1: "float32", 2: "float64", 3: "int32", 4: "uint8", 5: "int16", 6: "int8", 9: "int64", 10: "bool", 19: "float16"}

_NAMES = (
    "AbsVal", "QuantizedAdd", "ArgMax", "AsString", "InstanceNorm", "BatchToSpaceND", "Bias", "BinaryOp", "Bnll", "Cast", "Concat", "Const",
    "Convolution", "ConvolutionDepthwise", "Crop", "CropAndResize", "Cubic", "Deconvolution", "DeconvolutionDepthwise", "Dequantize",
    "DetectionOutput", "Dropout", "Eltwise", "ELU", "Unique", "Exp", "ExpandDims", "Fill", "Flatten", "FloorMod", "Gather", "GatherV2",
    "Im2Seq", "InnerProduct", "Input", "Interp", "Log", "LRN", "LSTM", "MatMul", "MVN", "NonMaxSuppression", "NonMaxSuppressionV2",
    "Normalize", "Pack", "Padding", "Permute", "Pooling", "Power", "PReLU", "PriorBox", "Proposal", "QuantizedAvgPool", "QuantizedBiasAdd",
    "QuantizedConcat", "QuantizedDepthwiseConv2D", "QuantizedLogistic", "QuantizedMatMul", "QuantizedMaxPool", "QuantizedRelu",
    "QuantizedRelu6", "QuantizedReshape", "QuantizedSoftmax", "QuantizeMaxMin", "QuantizeV2", "Range", "Rank", "ReduceJoin", "Reduction",
    "ReLU", "ReLU6", "RequantizationRange", "Requantize", "Reshape", "Resize", "RNN", "ROIPooling", "Scale", "Selu", "Seq2Out", "Shape",
    "Sigmoid", "Size", "Slice", "SliceTf", "Softmax", "SpaceToBatchND", "SpatialProduct", "Split", "Segment", "Squeeze", "StridedSlice",
    "StringJoin", "StringSplit", "StringToNumber", "TanH", "TfQuantizedConv2D", "Threshold", "Tile", "TopKV2", "Transpose", "UnaryOp",
    "Unpack", "Where", "Moments", "RNNSequenceGRU", "BatchMatMul", "Unsqueeze", "CosineSimilarity", "DepthToSpace", "SpaceToDepth",
    "ReverseSequence", "Pooling3D", "Convolution3D", "MatrixBandPart", "GatherND", "DetectionPostProcess", "UnravelIndex", "ScatterNd",
    "OneHot", "BroadcastTo", "Dilation2D",
)  # fmt: skip
OPERATORS = dict(enumerate(_NAMES)) | {
    128: "Raster", 129: "ConvertTensor", 130: "ArgMin", 131: "LinSpace", 132: "RandomUniform", 133: "TensorArray", 134: "TensorArraySize",
    135: "TensorArrayRead", 136: "TensorArrayWrite", 137: "TensorArrayGather", 138: "TensorArrayScatter", 139: "TensorArraySplit",
    140: "TensorArrayConcat", 141: "LSTMBlockCell", 142: "Reverse", 256: "Plugin", 257: "Select", 258: "ZerosLike", 259: "Broastcast",
    260: "SetDiff1D", 261: "ReluGrad", 262: "Relu6Grad", 263: "PoolGrad", 264: "SoftmaxGrad", 265: "Conv2DBackPropFilter",
    266: "TrainableParam", 267: "BatchNorm", 268: "ZeroGrad", 512: "Extra", 513: "ConvInt8", 514: "Int8ToFloat", 515: "DepthwiseConvInt8",
    516: "PoolInt8", 517: "FloatToInt8", 518: "EltwiseInt8", 600: "While", 601: "If", 603: "LayerNorm", 604: "GridSample",
}  # fmt: skip


class MnnSummary(msgspec.Struct, frozen=True, kw_only=True):
    """``version`` is empty where the file has none; ``layouts`` maps an input to what MNN must be given.

    ``weights`` counts the layers with weights by how they are kept (float32, float16, quantized);
    ``parameters`` the float32 and float16 numbers (a quantized layer keeps codes, whose count the file does not say).
    """

    version: str
    source: str
    usage: str
    uuid: str
    inputs: tuple[TensorInfo, ...]
    outputs: tuple[TensorInfo, ...]
    layouts: dict[str, str]
    ops: dict[str, int]
    weights: dict[str, int]
    parameters: int
    subgraphs: tuple[str, ...]


def read_summary(path: Path) -> MnnSummary:
    """Read the file at *path*. Raises RefusedError where it is damaged or holds no operator."""
    net = root(path.read_bytes())
    oplists = net.tables(OPLISTS)
    subgraphs = net.tables(SUBGRAPHS)
    if not oplists:
        raise RefusedError("the MNN model holds no operator", seen=path.name, next="convert it again")
    every = [*oplists, *(op for graph in subgraphs for op in graph.tables(NODES))]
    inputs = [op for op in oplists if _kind(op) == "Input"]
    extra = net.table(EXTRA_INFO)
    version = extra.text(VERSION) if extra else ""
    return MnnSummary(
        version=version, source=_named(SOURCES, net.integer(SOURCE, "<b")), usage=_named(USAGES, net.integer(USAGE, "<b")),
        uuid=net.text(UUID), inputs=tuple(map(_input, inputs)), outputs=tuple(map(TensorInfo, _outputs(net, oplists))),
        layouts={op.text(NAME): _layout(op) for op in inputs}, ops=dict(Counter(map(_kind, every)).most_common()),
        weights=dict(Counter(kept for op in every if (kept := _kept(op)))), parameters=sum(map(_numbers, every)),
        subgraphs=tuple(graph.text(0) for graph in subgraphs),
    )  # fmt: skip


def _outputs(net: Table, oplists: list[Table]) -> list[str]:
    """The names stated, else those of the tensors that are made and that nothing takes."""
    stated = net.texts(OUTPUT_NAMES)
    if stated:
        return stated
    names = net.texts(TENSOR_NAMES)
    taken = {index for op in oplists for index in op.integers(INPUTS)}
    left = [index for op in oplists if _kind(op) != "Const" for index in op.integers(OUTPUTS) if index not in taken]
    return [names[index] for index in left if 0 <= index < len(names)]


def _kind(op: Table) -> str:
    number = op.integer(TYPE)
    return OPERATORS.get(number, f"operator {number}")


def _named(names: tuple[str, ...], number: int) -> str:
    return names[number] if 0 <= number < len(names) else str(number)


def _input(op: Table) -> TensorInfo:
    main = op.table(MAIN)
    if main is None:
        return TensorInfo(op.text(NAME))
    dtype = DTYPES.get(main.integer(INPUT_DTYPE, default=1), "")
    return TensorInfo(op.text(NAME), dtype, tuple(n if n > 0 else None for n in main.integers(INPUT_DIMS)))


def _layout(op: Table) -> str:
    main = op.table(MAIN)
    return _named(LAYOUTS, main.integer(INPUT_FORMAT, "<b")) if main else ""


def _kept(op: Table) -> str:
    """How a convolution or fully connected layer keeps its weights; empty for an operator without."""
    main = op.table(MAIN) if op.integer(MAIN_TYPE, "<B") == CONVOLUTION2D else None
    if main is None:
        return ""
    quantized = main.table(QUANTIZED)
    if quantized is not None and quantized.length(BUFFER):
        return "float16" if quantized.integer(QUANT_TYPE) == HALF else "quantized"
    return "float32" if main.length(WEIGHT) else ""


def _numbers(op: Table) -> int:
    main = op.table(MAIN) if op.integer(MAIN_TYPE, "<B") == CONVOLUTION2D else None
    if main is None:
        return 0
    quantized = main.table(QUANTIZED)
    halves = quantized.length(BUFFER) // 2 if quantized is not None and quantized.integer(QUANT_TYPE) == HALF else 0
    return main.length(WEIGHT) + main.length(BIAS) + halves
