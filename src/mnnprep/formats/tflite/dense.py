"""Sparse weights of a .tflite file made dense: MNN and tf2onnx read neither a sparse buffer nor DENSIFY.

Format facts: tensorflow/lite/schema/schema.fbs (SparsityParameters, DimensionMetadata). The levels of a
sparse tensor are its dimensions and those of its blocks, in ``traversal_order``; a level is dense (all of
``dense_size``) or compressed (``array_segments`` say where the entries of each parent begin,
``array_indices`` which they are); block dimension ``k`` divides the dimension ``block_map[k]``
(tensorflow/lite/kernels/internal/utils/sparsity_format_converter.cc).
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from mnnprep.deps import require
from mnnprep.errors import RefusedError
from mnnprep.formats.tflite.operators import TYPES
from mnnprep.safety.archives import unfolded_limit

if TYPE_CHECKING:
    from types import ModuleType

    from ai_edge_litert.schema_py_generated import DimensionMetadataT, ModelT, SparsityParametersT, TensorT

Array = npt.NDArray[Any]
DENSE = 0  # DimensionType
IDENTIFIER = b"TFL3"


def made_dense(content: bytes) -> bytes:
    """The model with every sparse tensor dense and no DENSIFY; what used its result uses the tensor itself.

    Raises:
        RefusedError: sparsity parameters that don't fit their tensor.
    """
    schema = require("ai_edge_litert.schema_py_generated")
    flatbuffers = require("flatbuffers")
    model = schema.ModelT.InitFromPackedBuf(content, 0)
    densify = schema.BuiltinOperator.DENSIFY
    codes = [max(code.builtinCode, code.deprecatedBuiltinCode) for code in model.operatorCodes]
    for graph in model.subgraphs:
        for tensor in graph.tensors:
            if tensor.sparsity is not None:
                _fill(model, tensor, schema)
        moved = {
            int(o.outputs[0]): int(o.inputs[0]) for o in graph.operators if codes[o.opcodeIndex] == densify
        }
        graph.operators = [o for o in graph.operators if codes[o.opcodeIndex] != densify]
        for operator in graph.operators:
            operator.inputs = [moved.get(int(i), int(i)) for i in operator.inputs]
        graph.outputs = [moved.get(int(i), int(i)) for i in graph.outputs]
    builder = flatbuffers.Builder(len(content) + 1024)
    builder.Finish(model.Pack(builder), file_identifier=IDENTIFIER)
    return bytes(builder.Output())


def _fill(model: ModelT, tensor: TensorT, schema: ModuleType) -> None:
    name = tensor.name.decode(errors="replace")
    try:
        stored = np.frombuffer(bytes(model.buffers[tensor.buffer].data), TYPES[tensor.type])
        values = _expanded(stored, [int(n) for n in tensor.shape], tensor.sparsity)
    except (ValueError, IndexError, TypeError, AttributeError) as error:
        raise RefusedError(
            "the sparsity of a tensor does not fit its shape or its values",
            seen=f"{name}: {error}",
            next="convert it again",
        ) from error
    buffer = schema.BufferT()
    buffer.data = np.frombuffer(values.tobytes(), np.uint8)
    model.buffers.append(buffer)
    tensor.buffer = len(model.buffers) - 1
    tensor.sparsity = None


def _expanded(stored: Array, shape: list[int], sparsity: SparsityParametersT) -> Array:
    """The dense array of *shape* whose entries are *stored*, in the order of the levels."""
    order = [int(d) for d in sparsity.traversalOrder]
    blocks = [int(d) for d in (sparsity.blockMap if sparsity.blockMap is not None else [])]
    if sorted(order) != list(range(len(shape) + len(blocks))) or len(sparsity.dimMetadata) != len(order):
        raise ValueError(f"levels {order} for {len(shape)} dimensions and {len(blocks)} of blocks")
    entries = math.prod(shape)
    if min(shape, default=0) < 0 or entries * stored.itemsize > unfolded_limit(stored.nbytes):
        raise ValueError(f"{len(stored)} values would unfold to the shape {shape}")
    place = np.zeros(1, np.int64)  # of each entry among those of its level
    index: list[Array] = [np.zeros(1, np.int64)] * len(order)
    size = [1] * len(order)
    for level, dimension in enumerate(order):
        extent = shape[dimension] if dimension < len(shape) else 0
        parents, place, found, size[dimension] = _level(place, sparsity.dimMetadata[level], extent, entries)
        index = [i[parents] for i in index]
        index[dimension] = found
    coordinates = index[: len(shape)]
    for number, dimension in enumerate(blocks):
        block = len(shape) + number
        coordinates[dimension] = coordinates[dimension] * size[block] + index[block]
    if len(place) != len(stored):
        raise ValueError(f"{len(stored)} values for {len(place)} entries")
    dense = np.zeros(shape, stored.dtype)
    dense[tuple(coordinates)] = stored[place]
    return dense


def _level(
    place: Array, metadata: DimensionMetadataT, extent: int, most: int
) -> tuple[Array, Array, Array, int]:
    """Go one level below the entries at *place*.

    Gives for each entry of it that of its parent, its own place, its index; and the level's size.

    Raises:
        ValueError: it has more than *most* entries.
    """
    if metadata.format == DENSE:
        size = int(metadata.denseSize)
        if not 0 <= size * len(place) <= most:
            raise ValueError(f"a level of {size} times {len(place)} entries")
        found = np.tile(np.arange(size), len(place))
        parents = np.repeat(np.arange(len(place)), size)
        return parents, place[parents] * size + found, found, size
    segments, indices = (
        np.asarray(v.values, np.int64) for v in (metadata.arraySegments, metadata.arrayIndices)
    )
    counts = segments[place + 1] - segments[place]
    if counts.size and (counts.min() < 0 or sum(counts.tolist()) > most):
        raise ValueError("a level of more entries than the tensor has")
    parents = np.repeat(np.arange(len(place)), counts)
    first = np.concatenate([[0], np.cumsum(counts)[:-1]])
    own = segments[place][parents] + np.arange(int(counts.sum())) - first[parents]
    return parents, own, indices[own], extent
