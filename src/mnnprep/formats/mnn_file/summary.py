"""The content of a ``.mnn`` file, read from its bytes; MNN is not loaded.

Format facts: MNN's schema/default/MNN.fbs, CaffeOp.fbs and TensorflowOp.fbs (tables, the order of their
fields, operator numbers).
"""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import msgspec

from mnnprep.errors import RefusedError
from mnnprep.formats.tensor_info import TensorInfo
from mnnprep.mnn.boundary import INPUT, MAIN, OPLISTS, TYPE, input_of, net_in, output_names, version_of
from mnnprep.mnn.info import MnnTensor
from mnnprep.wire.flatbuffer import Table

# Fields of Net, Op, SubGraphProto, Convolution2D and IDSTQuan beside those of mnnprep.mnn.boundary
SOURCE, USAGE, SUBGRAPHS, UUID = 6, 9, 10, 11
MAIN_TYPE = 1
NODES = 4
WEIGHT, BIAS, QUANTIZED = 1, 2, 3
BUFFER, QUANT_TYPE = 0, 2
BLOB, CONVOLUTION2D = 7, 9  # in the union OpParameter
FLOATS = 7  # Blob.float32s
HALF = 3  # IDSTQuan.type: the weights are kept as float16

SOURCES = ("CAFFE", "TENSORFLOW", "TFLITE", "ONNX", "TORCH")
USAGES = ("INFERENCE", "TRAIN", "INFERENCE_STATIC")

_NAMES = (
    "AbsVal",
    "QuantizedAdd",
    "ArgMax",
    "AsString",
    "InstanceNorm",
    "BatchToSpaceND",
    "Bias",
    "BinaryOp",
    "Bnll",
    "Cast",
    "Concat",
    "Const",
    "Convolution",
    "ConvolutionDepthwise",
    "Crop",
    "CropAndResize",
    "Cubic",
    "Deconvolution",
    "DeconvolutionDepthwise",
    "Dequantize",
    "DetectionOutput",
    "Dropout",
    "Eltwise",
    "ELU",
    "Unique",
    "Exp",
    "ExpandDims",
    "Fill",
    "Flatten",
    "FloorMod",
    "Gather",
    "GatherV2",
    "Im2Seq",
    "InnerProduct",
    "Input",
    "Interp",
    "Log",
    "LRN",
    "LSTM",
    "MatMul",
    "MVN",
    "NonMaxSuppression",
    "NonMaxSuppressionV2",
    "Normalize",
    "Pack",
    "Padding",
    "Permute",
    "Pooling",
    "Power",
    "PReLU",
    "PriorBox",
    "Proposal",
    "QuantizedAvgPool",
    "QuantizedBiasAdd",
    "QuantizedConcat",
    "QuantizedDepthwiseConv2D",
    "QuantizedLogistic",
    "QuantizedMatMul",
    "QuantizedMaxPool",
    "QuantizedRelu",
    "QuantizedRelu6",
    "QuantizedReshape",
    "QuantizedSoftmax",
    "QuantizeMaxMin",
    "QuantizeV2",
    "Range",
    "Rank",
    "ReduceJoin",
    "Reduction",
    "ReLU",
    "ReLU6",
    "RequantizationRange",
    "Requantize",
    "Reshape",
    "Resize",
    "RNN",
    "ROIPooling",
    "Scale",
    "Selu",
    "Seq2Out",
    "Shape",
    "Sigmoid",
    "Size",
    "Slice",
    "SliceTf",
    "Softmax",
    "SpaceToBatchND",
    "SpatialProduct",
    "Split",
    "Segment",
    "Squeeze",
    "StridedSlice",
    "StringJoin",
    "StringSplit",
    "StringToNumber",
    "TanH",
    "TfQuantizedConv2D",
    "Threshold",
    "Tile",
    "TopKV2",
    "Transpose",
    "UnaryOp",
    "Unpack",
    "Where",
    "Moments",
    "RNNSequenceGRU",
    "BatchMatMul",
    "Unsqueeze",
    "CosineSimilarity",
    "DepthToSpace",
    "SpaceToDepth",
    "ReverseSequence",
    "Pooling3D",
    "Convolution3D",
    "MatrixBandPart",
    "GatherND",
    "DetectionPostProcess",
    "UnravelIndex",
    "ScatterNd",
    "OneHot",
    "BroadcastTo",
    "Dilation2D",
)
OPERATORS = dict(enumerate(_NAMES)) | {
    128: "Raster",
    129: "ConvertTensor",
    130: "ArgMin",
    131: "LinSpace",
    132: "RandomUniform",
    133: "TensorArray",
    134: "TensorArraySize",
    135: "TensorArrayRead",
    136: "TensorArrayWrite",
    137: "TensorArrayGather",
    138: "TensorArrayScatter",
    139: "TensorArraySplit",
    140: "TensorArrayConcat",
    141: "LSTMBlockCell",
    142: "Reverse",
    256: "Plugin",
    257: "Select",
    258: "ZerosLike",
    259: "Broastcast",
    260: "SetDiff1D",
    261: "ReluGrad",
    262: "Relu6Grad",
    263: "PoolGrad",
    264: "SoftmaxGrad",
    265: "Conv2DBackPropFilter",
    266: "TrainableParam",
    267: "BatchNorm",
    268: "ZeroGrad",
    512: "Extra",
    513: "ConvInt8",
    514: "Int8ToFloat",
    515: "DepthwiseConvInt8",
    516: "PoolInt8",
    517: "FloatToInt8",
    518: "EltwiseInt8",
    600: "While",
    601: "If",
    603: "LayerNorm",
    604: "GridSample",
}


class MnnSummary(msgspec.Struct, frozen=True, kw_only=True):
    """``version`` is empty if the file has none; ``layouts`` maps an input to what MNN must be given.

    ``weights`` counts the layers with weights by how they are kept (float32, float16, quantized);
    ``parameters`` the float32 and float16 numbers (a quantized layer keeps codes, whose count the file does
    not say).
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
    """Read the file at *path*.

    Raises:
        RefusedError: it is damaged or holds no operator.
    """
    with net_in(path.read_bytes()) as net:
        return _summary(net, path.name)


def _summary(net: Table, name: str) -> MnnSummary:
    oplists = net.tables(OPLISTS)
    subgraphs = net.tables(SUBGRAPHS)
    if not oplists:
        raise RefusedError("the MNN model has no operators", seen=name, next="convert it again")
    every = [*oplists, *(op for graph in subgraphs for op in graph.tables(NODES))]
    inputs = [input_of(op) for op in oplists if op.integer(TYPE) == INPUT]
    return MnnSummary(
        version=version_of(net),
        source=_named(SOURCES, net.integer(SOURCE, "b")),
        usage=_named(USAGES, net.integer(USAGE, "b")),
        uuid=net.text(UUID),
        inputs=tuple(map(_tensor, inputs)),
        outputs=tuple(map(TensorInfo, output_names(net))),
        layouts={t.name: t.layout for t in inputs},
        ops=dict(Counter(map(_kind, every)).most_common()),
        weights=dict(Counter(kept for op in every if (kept := _kept(op)))),
        parameters=sum(map(_numbers, every)),
        subgraphs=tuple(graph.text(0) for graph in subgraphs),
    )


def _kind(op: Table) -> str:
    number = op.integer(TYPE)
    return OPERATORS.get(number, f"operator {number}")


def _named(names: tuple[str, ...], number: int) -> str:
    return names[number] if 0 <= number < len(names) else str(number)


def _tensor(given: MnnTensor) -> TensorInfo:
    if not given.layout:
        return TensorInfo(given.name)
    return TensorInfo(given.name, given.dtype, tuple(n if n > 0 else None for n in given.shape))


def _kept(op: Table) -> str:
    """How a convolution or fully connected layer keeps its weights; empty for an operator without."""
    main = op.table(MAIN) if op.integer(MAIN_TYPE, "B") == CONVOLUTION2D else None
    if main is None:
        return ""
    quantized = main.table(QUANTIZED)
    if quantized is not None and quantized.length(BUFFER):
        return "float16" if quantized.integer(QUANT_TYPE) == HALF else "quantized"
    return "float32" if main.length(WEIGHT) else ""


def _numbers(op: Table) -> int:
    blob = op.table(MAIN) if op.integer(MAIN_TYPE, "B") == BLOB else None
    if blob is not None:
        count = blob.length(FLOATS)
        return count if count > 1 else 0
    main = op.table(MAIN) if op.integer(MAIN_TYPE, "B") == CONVOLUTION2D else None
    if main is None:
        return 0
    quantized = main.table(QUANTIZED)
    halves = (
        quantized.length(BUFFER) // 2
        if quantized is not None and quantized.integer(QUANT_TYPE) == HALF
        else 0
    )
    return main.length(WEIGHT) + main.length(BIAS) + halves
