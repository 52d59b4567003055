"""The classes of TensorFlow, Keras and tf2onnx that signatures name.

They have no stubs, so that a type checker takes each for Any; the names are for readers. Nothing is imported
when the program runs.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeAlias

__all__ = [
    "ConcreteFunction",
    "FunctionDef",
    "Graph",
    "GraphDef",
    "MetaGraphDef",
    "Model",
    "NodeDef",
    "OpDef",
    "SavedObjectGraph",
    "Session",
    "StructuredValue",
    "Tensor",
    "TensorProto",
    "TensorSpec",
]

# Tensors or arrays alone, in tuples, lists and dictionaries: what tf.nest flattens.
StructuredValue: TypeAlias = Any

if TYPE_CHECKING:
    from keras import Model
    from tensorflow import Tensor, TensorSpec
    from tensorflow.compat.v1 import Session
    from tensorflow.core.framework.function_pb2 import FunctionDef
    from tensorflow.core.framework.graph_pb2 import GraphDef
    from tensorflow.core.framework.node_def_pb2 import NodeDef
    from tensorflow.core.framework.op_def_pb2 import OpDef
    from tensorflow.core.framework.tensor_pb2 import TensorProto
    from tensorflow.core.protobuf.meta_graph_pb2 import MetaGraphDef
    from tensorflow.core.protobuf.saved_object_graph_pb2 import SavedObjectGraph
    from tensorflow.python.eager.polymorphic_function.concrete_function import (
        ConcreteFunction,
    )
    from tf2onnx.graph import Graph
