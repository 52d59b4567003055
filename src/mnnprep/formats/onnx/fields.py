"""The field numbers of ONNX's messages, as far as they are read without onnx.

Format facts: onnx/onnx.proto.
"""

from __future__ import annotations


class Model:
    """ModelProto."""

    IR_VERSION, PRODUCER_NAME, PRODUCER_VERSION, GRAPH, OPSET_IMPORT = 1, 2, 3, 7, 8
    METADATA_PROPS, TRAINING_INFO, FUNCTIONS = 14, 20, 25


class OpsetId:
    """OperatorSetIdProto."""

    DOMAIN, VERSION = 1, 2


class Entry:
    """StringStringEntryProto."""

    KEY, VALUE = 1, 2


class Function:
    """FunctionProto."""

    NAME, INPUT, NODE, OPSET_IMPORT, DOMAIN = 1, 4, 7, 9, 10


class Graph:
    """GraphProto."""

    NODE, INITIALIZER, INPUT, OUTPUT, SPARSE_INITIALIZER = 1, 5, 11, 12, 15


class Node:
    """NodeProto."""

    INPUT, OUTPUT, NAME, OP_TYPE, ATTRIBUTE, DOMAIN = 1, 2, 3, 4, 5, 7


class Attribute:
    """AttributeProto."""

    NAME, INTEGER, TENSOR, GRAPH, TENSORS, GRAPHS, SPARSE_TENSOR, SPARSE_TENSORS = 1, 3, 5, 6, 10, 11, 22, 23


class Tensor:
    """TensorProto."""

    DIMS, DATA_TYPE, NAME = 1, 2, 8
    FLOAT_DATA, INT32_DATA, STRING_DATA, INT64_DATA = 4, 5, 6, 7
    RAW_DATA, DOUBLE_DATA, UINT64_DATA = 9, 10, 11
    DOC_STRING, EXTERNAL_DATA, DATA_LOCATION, METADATA_PROPS = 12, 13, 14, 16
    EXTERNAL = 1  # the DataLocation of a tensor whose numbers lie in another file
    DATA = frozenset(
        {FLOAT_DATA, INT32_DATA, STRING_DATA, INT64_DATA, RAW_DATA, DOUBLE_DATA, UINT64_DATA}
    )  # the fields that hold its numbers


class SparseTensor:
    """SparseTensorProto."""

    VALUES = 1


class ValueInfo:
    """ValueInfoProto."""

    NAME, TYPE = 1, 2


class Type:
    """TypeProto."""

    TENSOR, SEQUENCE, MAP, OPAQUE, SPARSE_TENSOR, OPTIONAL = 1, 4, 5, 7, 8, 9
    ELEMENT = 1  # in TypeProto.Sequence and TypeProto.Optional


class TensorType:
    """TypeProto.Tensor and TypeProto.SparseTensor."""

    ELEM_TYPE, SHAPE = 1, 2


class Shape:
    """TensorShapeProto."""

    DIM = 1


class Dimension:
    """TensorShapeProto.Dimension."""

    VALUE, PARAM = 1, 2
