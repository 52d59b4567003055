"""The weights of a graph that was exported without them.

They are streamed from the checkpoint into the file beside it.

Nothing of the net is loaded: every weight is a plan (:mod:`mnnprep.weights.plan`), and its bytes go from file
to file if neither dtype nor order changes.  Format facts: onnx/docs/ExternalData.md.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from mnnprep.comparison.weight_equivalence import match_weights
from mnnprep.deps import require
from mnnprep.errors import RefusedError, UsageError
from mnnprep.evidence.check import Check
from mnnprep.formats.onnx import graph as graphs
from mnnprep.formats.onnx.moved import Turned, take_out, used_names
from mnnprep.formats.onnx.scan_tensors import DTYPES
from mnnprep.formats.onnx.steps import ALIGNMENT, EXTERNAL, EXTERNAL_FROM, MODEL
from mnnprep.formats.streaming import Attached, AttachJob, CompareJob, Filling
from mnnprep.model.files import file_ref
from mnnprep.weights import copy_ranges as seg
from mnnprep.weights.convert import Changed, Rounding
from mnnprep.weights.copying import Sink, copy_all, write_all
from mnnprep.weights.dtypes import FLOATING
from mnnprep.weights.places import Files
from mnnprep.weights.plan import RAW, Tensor, bytes_of, stored, zeros
from mnnprep.weights.read import Chosen, plan_state, require_fit
from mnnprep.weights.resumable_output import disk_full, translated
from mnnprep.workers.server import doing

if TYPE_CHECKING:
    from onnx import ModelProto, TensorProto

Array = npt.NDArray[Any]
CODES = {name: code for code, name in DTYPES.items()}
TURN_BYTES = 64 << 20  # of a matrix transposed at once


def attach(job: AttachJob) -> Attached:
    """The model with its weights beside it.

    Raises:
        UsageError: weights that don't fit.
        RefusedError: a damaged checkpoint.
    """
    doing("reading the checkpoint's plan")
    model = graphs.load_graph(job.filling.skeleton)
    directory = Path(job.directory)
    with Files() as files:
        tensors, notes = _planned(job.filling, model, files)
        known = take_out(model, tensors)
        _drop_inputs(model, tensors)
        used = used_names(model)
        places = {}
        end = 0
        for name, tensor in known.items():
            if name not in used:
                continue
            if tensor.nbytes >= EXTERNAL_FROM:
                places[name] = end = -(-end // ALIGNMENT) * ALIGNMENT
                end += tensor.nbytes
            model.graph.initializer.append(_initializer(name, tensor, places.get(name)))
        doing("streaming the weights")
        data = directory / EXTERNAL
        if places:
            _stream(data, {name: known[name] for name in places}, places, end)
        if changed := [file.name for file in files.opened() if file.changed()]:
            raise RefusedError(
                "the checkpoint was changed while it was read",
                seen=", ".join(changed[:5]),
                next="run it again when nothing writes to it",
            )
    target = directory / MODEL
    target.write_bytes(model.SerializeToString(deterministic=True))
    return Attached(files=[file_ref(target), *([file_ref(data)] if places else [])], notes=notes)


def _planned(filling: Filling, model: ModelProto, files: Files) -> tuple[dict[str, Tensor], list[str]]:
    """Return the weights by the names of the graph's inputs, and notes.

    They have the model's shapes and dtypes. Nothing is read of them.
    """
    expected = filling.shapes.expected()
    chosen = plan_state(files.at(filling.checkpoint), expected)
    require_fit(chosen, expected, strict=True)
    asked = {
        value.name: value.type.tensor_type for value in model.graph.input if value.name in filling.weights
    }
    planned = {}
    for name, kind in asked.items():
        state = filling.weights[name]
        shape = tuple(d.dim_value for d in kind.shape.dim)
        tensor = _of(chosen, state, expected.tied)
        if tensor is None:  # a counter, which plays no part
            tensor = zeros(DTYPES[kind.elem_type], shape)
        planned[name] = _as(state, tensor, DTYPES[kind.elem_type], shape)
    return planned, list(chosen.notes)


def _of(chosen: Chosen, name: str, tied: tuple[frozenset[str], ...]) -> Tensor | None:
    """The tensor of *name*, or that of a name tied to it."""
    names = [
        name,
        chosen.aliases.get(name, name),
        *sorted(n for group in tied if name in group for n in group),
    ]
    return next((chosen.tensors[n] for n in names if n in chosen.tensors), None)


def _as(name: str, tensor: Tensor, dtype: str, shape: tuple[int, ...]) -> Tensor:
    """*tensor* in the model's dtype and shape (torch up to 0.3 saved scalars with the shape [1])."""
    if tensor.shape != shape and math.prod(shape) == tensor.elements == 1 and tensor.pieces:
        piece = tensor.pieces[0]
        tensor = stored(tensor.dtype, shape, piece.file, piece.offset)
    if tensor.dtype == dtype:
        return tensor
    if not {tensor.dtype, dtype} <= FLOATING:
        raise UsageError(
            "the weights don't fit the model",
            seen=f"{name}: checkpoint {tensor.dtype} vs model {dtype}",
            next="give the weights as they were trained, before any quantization",
        )
    return Changed(
        dtype, shape, (), base=tensor, rounding=Rounding(name=name, source=tensor.dtype, target=dtype)
    )


def _drop_inputs(model: ModelProto, tensors: Mapping[str, Tensor]) -> None:
    rest = [value for value in model.graph.input if value.name not in tensors]
    del model.graph.input[:]
    model.graph.input.extend(rest)


def _initializer(name: str, tensor: Tensor, place: int | None) -> TensorProto:
    """The TensorProto: its values inside if *place* is None, else at that byte of the data file."""
    proto: TensorProto = require("onnx").TensorProto(
        name=name, dims=tensor.shape, data_type=CODES[tensor.dtype]
    )
    if place is None:
        proto.raw_data = tensor.array().tobytes()
        return proto
    proto.data_location = require("onnx").TensorProto.EXTERNAL
    for key, value in (("location", EXTERNAL), ("offset", str(place)), ("length", str(tensor.nbytes))):
        proto.external_data.add(key=key, value=value)
    return proto


def _stream(target: Path, tensors: Mapping[str, Tensor], places: Mapping[str, int], size: int) -> None:
    """Write *tensors* at their *places* of *target*; the gaps are zeros.

    Raises:
        RefusedError: the disk is too small.
    """
    disk = os.statvfs(target.parent)
    if size > disk.f_bavail * disk.f_frsize:
        raise disk_full(target, size, disk.f_bavail * disk.f_frsize)
    turned = {n: t for n, t in tensors.items() if isinstance(t, Turned) and t.nbytes > TURN_BYTES}
    with target.open("wb") as file, translated(target):
        os.ftruncate(file.fileno(), size)
        copied = [s for n, t in tensors.items() if n not in turned for s in seg.of_tensor(t, places[n])]
        copy_all(seg.merged(copied), Sink(file.fileno()), 0, lambda _: None)
        for name, tensor in turned.items():
            _turn(tensor, file.fileno(), places[name])


def _turn(tensor: Turned, output: int, place: int) -> None:
    """Write a matrix transposed, some of its rows at a time.

    Each becomes a stretch of every row of the output.
    """
    assert tensor.base is not None
    rows, columns = tensor.base.shape
    item = tensor.nbytes // max(1, tensor.elements)
    step = max(1, TURN_BYTES // (columns * item))
    at = 0
    held: list[Array] = []
    for block in _rows(tensor.base, step):
        held = [np.ascontiguousarray(block.T)]
        for column in range(columns):
            write_all(output, bytes_of(held[0][column]), place + (column * rows + at) * item)
        at += block.shape[0]


def _rows(tensor: Tensor, step: int) -> Iterator[Array]:
    """The matrix, *step* rows at a time."""
    rows, columns = tensor.shape
    item = tensor.nbytes // max(1, tensor.elements)
    if tensor.pieces and tensor.grid == tensor.shape:
        for at in range(0, rows, step):
            yield tensor.box((at, 0), (min(step, rows - at), columns))
        return
    left = np.empty(0, RAW[item])
    for block in tensor.blocks():  # computed: in row-major order, in blocks of its own size
        left = np.concatenate([left, block.reshape(-1).view(RAW[item])])
        whole = left.size // columns
        if whole:
            yield left[: whole * columns].reshape(whole, columns)
            left = left[whole * columns :].copy()


class _Lazy(Mapping[str, Array]):
    """Arrays by name, each read when it is asked for and not kept."""

    def __init__(self, readers: dict[str, Callable[[], Array]]) -> None:
        self._readers = readers

    def __getitem__(self, name: str) -> Array:
        return self._readers[name]()

    def __iter__(self) -> Iterator[str]:
        return iter(self._readers)

    def __len__(self) -> int:
        return len(self._readers)


def compare(job: CompareJob) -> Check:
    """Make the ``weights`` check.

    Every weight of the checkpoint that the graph uses is in the model's files, bit by bit.
    """
    doing("comparing the artifact's initializers with the checkpoint")
    skeleton, model = graphs.load_graph(job.filling.skeleton), graphs.load_graph(job.model)
    used = used_names(skeleton)
    directory = Path(job.model).parent
    with Files() as files:
        tensors, _ = _planned(job.filling, skeleton, files)
        source = {job.filling.weights[n]: _reader(t) for n, t in tensors.items() if n in used}
        artifact = {t.name: _stored_reader(t, directory) for t in model.graph.initializer}
        return match_weights(_Lazy(source), _Lazy(artifact))


def _reader(tensor: Tensor) -> Callable[[], Array]:
    return lambda: _typed(tensor.array(), tensor.dtype)


def _stored_reader(proto: TensorProto, directory: Path) -> Callable[[], Array]:
    def read() -> Array:
        copy = type(proto)()
        copy.CopyFrom(proto)
        raw = graphs.with_data(copy, directory)
        array: Array = require("onnx.numpy_helper").to_array(raw)
        return _typed(array, DTYPES[proto.data_type])

    return read


def _typed(array: Array, dtype: str) -> Array:
    """The array as NumPy's dtype of that name; the bits as integers where NumPy has none."""
    try:
        return array.view(np.dtype(dtype))
    except TypeError:
        return array.view(np.dtype(RAW[array.dtype.itemsize]))
