"""A .tflite file's operators, tensors, quantization and state, read in place.

Needs no TensorFlow.

Format facts: tensorflow/lite/schema/schema.fbs; slots are the positions of the fields in its tables.
"""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import msgspec
import numpy as np

from mnnprep.errors import RefusedError
from mnnprep.formats.tensor_info import TensorInfo, element_count
from mnnprep.formats.tflite.operators import OPERATORS, TYPES
from mnnprep.model.files import Arrays
from mnnprep.wire.buffer import Buffer, mapped
from mnnprep.wire.flatbuffer import FlatbufferError, Table, root

STATE = frozenset({"VAR_HANDLE", "READ_VARIABLE", "ASSIGN_VARIABLE", "CALL_ONCE"})
TABLES = frozenset({"HASHTABLE", "HASHTABLE_FIND", "HASHTABLE_IMPORT", "HASHTABLE_SIZE"})
# operators that run something else than TFLite's own kernels, or that no schema numbers
FOREIGN = frozenset({"CUSTOM", "DELEGATE", "PLACEHOLDER_FOR_GREATER_OP_CODES", "STABLEHLO_CUSTOM_CALL"})
BUILTIN = frozenset(OPERATORS) - STATE - TABLES - FOREIGN  # computes alone: what may run
CODES_PLACEHOLDER = 127  # deprecated_builtin_code of an operator whose number is above it


class Quantization(msgspec.Struct, frozen=True):
    """How a tensor is quantized: ``real = scale * (stored - zero_point)``.

    Per channel along ``axis`` if there is more than one scale.
    """

    tensor: str
    dtype: str
    scale: tuple[float, ...]
    zero_point: tuple[int, ...]
    axis: int

    @property
    def kind(self) -> str:
        """``per-channel`` or ``per-tensor``."""
        return "per-channel" if len(self.scale) > 1 else "per-tensor"


class TfliteTensor(msgspec.Struct, frozen=True):
    """A tensor of the file: its buffer's index, how it is quantized, whether it is sparse or a variable."""

    info: TensorInfo
    buffer: int
    quantization: Quantization | None
    sparse: bool
    variable: bool


class TfliteSummary(msgspec.Struct, frozen=True, kw_only=True):
    """A TFLite model's own account of itself.

    ``ops`` counts builtin operators by name, custom ones as ``CUSTOM:NAME``; ``activations`` are those of
    ``quantized`` that are computed.

    ``state`` lists the operators that keep or look up state, ``custom`` those that are not kernels of TFLite,
    each once.
    """

    description: str
    subgraphs: int
    inputs: tuple[TensorInfo, ...]
    outputs: tuple[TensorInfo, ...]
    ops: dict[str, int]
    parameters: int
    quantized: tuple[Quantization, ...]
    activations: tuple[Quantization, ...] = ()
    sparse: tuple[str, ...]
    state: tuple[str, ...]
    custom: tuple[str, ...]
    signatures: tuple[str, ...]


def output_steps(path: Path) -> dict[str, float]:
    """The step of every output of a net that rounds while it computes.

    It is 1 for stored integers, the scale behind a DEQUANTIZE, and 0 for other floats, which have none.
    """
    with mapped(path) as data:
        model = root(data)
        graph = model.tables(2)[0]
        tensors = [_tensor(table) for table in graph.tables(0)]
        codes = [_operator(code) for code in model.tables(1)]
        dequantized = {
            operator.integers(2, "i")[0]: tensors[operator.integers(1, "i")[0]].quantization
            for operator in graph.tables(3)
            if codes[operator.integer(0, "I")] == "DEQUANTIZE"
        }
        found = {}
        for index in graph.integers(2, "i"):
            tensor, behind = tensors[index], dequantized.get(index)
            if tensor.info.dtype.startswith("float"):
                found[tensor.info.name] = behind.scale[0] if behind is not None else 0.0
            elif tensor.quantization is not None:
                found[tensor.info.name] = 1.0
        return found


def input_scales(path: Path) -> dict[str, float]:
    """The scale of every floating input that a QUANTIZE takes to 8 bits."""
    with mapped(path) as data:
        model = root(data)
        graph = model.tables(2)[0]
        tensors = [_tensor(table) for table in graph.tables(0)]
        codes = [_operator(code) for code in model.tables(1)]
        inputs, found = set(graph.integers(1, "i")), {}
        for operator in graph.tables(3):
            given, made = operator.integers(1, "i")[:1], operator.integers(2, "i")[:1]
            if codes[operator.integer(0, "I")] != "QUANTIZE" or not inputs.intersection(given):
                continue
            source, quantized = tensors[given[0]], tensors[made[0]].quantization
            if source.info.dtype == "float32" and quantized is not None and quantized.dtype.endswith("int8"):
                found[source.info.name] = quantized.scale[0]
        return found


def has_quantized_activations(summary: TfliteSummary) -> bool:
    """Whether the net rounds while it computes: a tensor that is not stored is quantized."""
    return any(q.dtype.startswith(("int", "uint")) for q in summary.activations)


def scan_model(path: Path) -> TfliteSummary:
    """Read the model at *path*.

    Raises:
        RefusedError: the file is damaged.
    """
    try:
        with mapped(path) as data:
            return _read(root(data))
    except (FlatbufferError, IndexError) as error:
        raise RefusedError(
            "the TFLite model is truncated or damaged",
            seen=f"{path.name}: {error}",
            next="download or save it again",
        ) from error


def _parameters(tensor: TfliteTensor) -> int:
    """Return the elements of a stored tensor, if it is a weight.

    Integers of 32 bits or more are shapes and indices, unless quantized.
    """
    structure = tensor.quantization is None and tensor.info.dtype in (
        "int32",
        "int64",
        "uint32",
        "uint64",
        "bool",
        "string",
    )
    return 0 if structure else element_count(tuple(e for e in tensor.info.shape or () if isinstance(e, int)))


def _read(model: Table) -> TfliteSummary:
    codes = [_operator(code) for code in model.tables(1)]
    graphs = model.tables(2)
    tensors = [[_tensor(t) for t in graph.tables(0)] for graph in graphs]
    used = [[codes[o.integer(0, "I")] for o in graph.tables(3)] for graph in graphs]
    ops = Counter(name for names in used for name in names)
    constant = {i for i, b in enumerate(model.tables(4)) if b.length(0) or b.integer(1, "Q") > 1}
    main = tensors[0]
    stored = {(t.buffer, t.info.shape): t for graph in tensors for t in graph if t.buffer in constant}
    return TfliteSummary(
        description=model.text(3),
        subgraphs=len(graphs),
        inputs=tuple(main[i].info for i in graphs[0].integers(1, "i")),
        outputs=tuple(main[i].info for i in graphs[0].integers(2, "i")),
        ops=dict(sorted(ops.items(), key=lambda item: (-item[1], item[0]))),
        parameters=sum(map(_parameters, stored.values())),
        quantized=tuple(t.quantization for graph in tensors for t in graph if t.quantization is not None),
        activations=tuple(
            t.quantization
            for graph in tensors
            for t in graph
            if t.quantization is not None and t.buffer not in constant
        ),
        sparse=tuple(t.info.name for graph in tensors for t in graph if t.sparse),
        state=tuple(sorted(n for n in ops if n in STATE | TABLES)),
        custom=tuple(sorted(n.removeprefix("CUSTOM:") for n in ops if n not in BUILTIN | STATE | TABLES)),
        signatures=tuple(s.text(2) for s in model.tables(7)),
    )


def tensor_names(path: Path) -> frozenset[str]:
    """The names of all tensors of the model at *path*."""
    with mapped(path) as data:
        return frozenset(_tensor(t).info.name for graph in root(data).tables(2) for t in graph.tables(0))


def operators_of(path: Path) -> list[tuple[str, str]]:
    """Return every operator of the model at *path* in the order they run.

    Each comes with the name of the first tensor it gives.
    """
    with mapped(path) as data:
        model = root(data)
        codes = [_operator(code) for code in model.tables(1)]
        found = []
        for graph in model.tables(2):
            tensors = [table.text(3) for table in graph.tables(0)]
            for operator in graph.tables(3):
                gives = operator.integers(2, "i")
                found.append((codes[operator.integer(0, "I")], tensors[gives[0]] if gives else ""))
        return found


def _operator(code: Table) -> str:
    """An operator's name: the newer field where the older, of one byte, is full."""
    number = max(code.integer(0, "b"), code.integer(3, "i"))
    name = OPERATORS[number] if 0 <= number < len(OPERATORS) else f"BUILTIN_{number}"
    return f"CUSTOM:{code.text(1)}" if name == "CUSTOM" else name


def _tensor(table: Table) -> TfliteTensor:
    number = table.integer(1, "b")
    dtype = TYPES[number] if 0 <= number < len(TYPES) else f"type {number}"
    fixed, signature = table.integers(0, "i"), table.integers(7, "i")
    shape = tuple(None if e < 0 else int(e) for e in signature or fixed)
    info = TensorInfo(table.text(3), dtype, shape)
    return TfliteTensor(
        info,
        table.integer(2, "I"),
        _quantization(table.table(4), info),
        table.table(6) is not None,
        bool(table.integer(5, "?")),
    )


def _quantization(table: Table | None, info: TensorInfo) -> Quantization | None:
    scale = table.floats(2) if table else ()
    if table is None or not scale:
        return None
    return Quantization(
        info.name,
        info.dtype,
        tuple(float(s) for s in scale),
        tuple(int(z) for z in table.integers(3, "q")),
        table.integer(6, "i"),
    )


def constants(path: Path) -> Arrays:
    """The constant tensors by name, quantized ones as the float32 they stand for; sparse ones are left out.

    A dtype that NumPy does not have is given as bytes; a name used twice gets its place.
    """
    with mapped(path) as data:
        return constants_in(data)


def constants_in(data: Buffer) -> Arrays:
    """The constant tensors of the model in *data*, as :func:`constants` gives them."""
    found: Arrays = {}
    model = root(data)
    buffers = model.tables(4)
    for number, graph in enumerate(model.tables(2)):
        for index, table in enumerate(graph.tables(0)):
            tensor = _tensor(table)
            content = _content(buffers[tensor.buffer])
            if not content or tensor.sparse:
                continue
            name = (
                tensor.info.name
                if tensor.info.name not in found
                else f"{tensor.info.name} ({number}:{index})"
            )
            found[name] = _array(content, tensor)
    return found


def _content(buffer: Table) -> bytes:
    """A buffer's bytes: inside, or behind the flatbuffer if the model is larger than 2 GB."""
    first, count = buffer.extent(0)
    if count:
        return bytes(buffer.data[first : first + count])
    start, size = buffer.integer(1, "Q"), buffer.integer(2, "Q")
    return bytes(buffer.data[start : start + size]) if start > 1 else b""


def _array(content: bytes, tensor: TfliteTensor) -> np.ndarray[tuple[int, ...], np.dtype[np.generic]]:
    shape = tuple(e for e in tensor.info.shape or () if isinstance(e, int))
    dtype = tensor.info.dtype
    if dtype not in np.sctypeDict or len(content) != np.dtype(dtype).itemsize * element_count(shape):
        return np.frombuffer(content, np.uint8)
    array = np.frombuffer(content, dtype).reshape(shape)
    q = tensor.quantization
    if q is None or array.dtype.kind not in "iu":
        return array
    along = [1] * array.ndim
    if len(q.scale) > 1:
        along[q.axis] = len(q.scale)
    scale = np.array(q.scale, np.float32).reshape(along if len(q.scale) > 1 else ())
    zero = np.array(q.zero_point or (0,), np.int64).reshape(along if len(q.zero_point) > 1 else ())
    return ((array.astype(np.int64) - zero).astype(np.float32) * scale).astype(np.float32)
