"""The steps that cut a piece out of an ONNX model.

The piece is a model of its own with only the weights that it needs.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec
import numpy as np

from mnnprep.deps import require
from mnnprep.errors import RefusedError
from mnnprep.formats.onnx.backend import RUNTIME
from mnnprep.formats.onnx.graph import subgraphs
from mnnprep.formats.onnx.outline import inferred, taken
from mnnprep.formats.onnx.skeleton import fetch, is_inline, skeleton
from mnnprep.model.files import Arrays, FileRef, file_ref, load_arrays
from mnnprep.model.reach import ReadPath, WritePath
from mnnprep.workers.server import doing
from mnnprep.workers.step import Step

if TYPE_CHECKING:
    from typing import BinaryIO

    import numpy.typing as npt
    from onnx import GraphProto, ModelProto, TensorProto, ValueInfoProto

FILE_NAME = "model.onnx"
DATA_NAME = "model.onnx.data"
ALIGNMENT = 4096
LARGEST_INLINE = 1 << 30  # bytes of weights: more, and they go to a file beside the model


class ExcerptJob(msgspec.Struct, frozen=True, kw_only=True):
    """Cut the nodes of these numbers out of ``model`` into ``directory/model.onnx``.

    The numbers count the main graph's nodes. The piece has ``outputs``.

    ``values`` are npz files that hold the values the piece takes, at one case: dtypes and ranks are theirs,
    and so are sizes that ONNX does not infer.  ``frozen`` are those of them that become initializers;
    ``shapes`` says of the others whether they keep the sizes of the case (``fixed``) or dynamic dimensions
    where the model has them (``declared``).  With ``linked``, weights outside the model's file stay there, in
    a link beside the piece: for conversions of large pieces.
    """

    model: ReadPath
    nodes: list[int]
    outputs: list[str]
    directory: WritePath
    values: list[str] = msgspec.field(default_factory=list)
    frozen: list[str] = msgspec.field(default_factory=list)
    shapes: str = "declared"
    linked: bool = False


class Excerpt(msgspec.Struct, frozen=True, kw_only=True):
    """``files[0]`` is the model; ``inputs`` and ``outputs`` are its names."""

    files: list[FileRef]
    inputs: list[str]
    outputs: list[str]


def excerpt(job: ExcerptJob) -> Excerpt:
    """Write the piece.

    Raises:
        RefusedError: it takes a value that is in no file of ``values``.
    """
    doing("cutting a piece out of the model")
    model = skeleton(job.model)
    nodes = [model.graph.node[i] for i in job.nodes]
    given = _given(job.values)
    made = {o for node in nodes for o in node.output}
    needed = [n for n in dict.fromkeys(n for node in nodes for n in taken(node)) if n and n not in made]
    initializers = {t.name: t for t in model.graph.initializer}
    inputs = [n for n in needed if n not in initializers and n not in job.frozen]
    stated = stated_types(model) if job.shapes == "declared" else {v.name: v for v in model.graph.input}
    piece = empty_like(model)
    piece.graph.node.extend(nodes)
    for name in needed:
        if name in initializers:
            piece.graph.initializer.add().CopyFrom(initializers[name])
        elif name in job.frozen:
            piece.graph.initializer.add().CopyFrom(
                require("onnx.numpy_helper").from_array(_value(given, name), name)
            )
    declared = job.shapes == "declared"
    piece.graph.input.extend([input_info(name, given, stated, declared) for name in inputs])
    piece.graph.output.extend([_output(name, given, stated, declared) for name in job.outputs])
    return Excerpt(
        files=write_piece(piece, job.model, Path(job.directory), linked=job.linked),
        inputs=inputs,
        outputs=job.outputs,
    )


def _given(paths: Iterable[str]) -> Arrays:
    given: Arrays = {}
    for path in paths:
        given |= {name.removeprefix("inputs/"): array for name, array in load_arrays(path).items()}
    return given


def _value(given: Arrays, name: str) -> npt.NDArray[np.generic]:
    if name not in given:
        raise RefusedError(
            "a piece of the model takes a value that could not be computed",
            seen=name,
            next="bisect another case with --case",
        )
    return given[name]


def empty_like(model: ModelProto) -> ModelProto:
    """A model of the same version, operator sets and functions, without a word of where it was made."""
    piece: ModelProto = require("onnx").ModelProto(ir_version=model.ir_version)
    piece.opset_import.extend(model.opset_import)
    piece.functions.extend(model.functions)
    piece.graph.name = "piece"
    return piece


def stated_types(model: ModelProto) -> dict[str, ValueInfoProto]:
    """The ValueInfoProto of every value whose type ONNX infers or the file states."""
    top = inferred(model).graph
    return {v.name: v for v in [*top.value_info, *top.output, *top.input]}


def input_info(name: str, given: Arrays, stated: dict[str, ValueInfoProto], declared: bool) -> ValueInfoProto:
    """The ValueInfoProto of an input: the model's own if that has the rank, else the case's."""
    helper = require("onnx.helper")
    own = stated.get(name)
    if name not in given and own is not None:
        return own
    array = _value(given, name)
    shape: list[int | str] = list(array.shape)
    if declared and own is not None and len(own.type.tensor_type.shape.dim) == array.ndim:
        for axis, dim in enumerate(own.type.tensor_type.shape.dim):
            if not dim.HasField("dim_value"):
                shape[axis] = dim.dim_param or f"{name}_{axis}"
    made: ValueInfoProto = helper.make_tensor_value_info(
        name, helper.np_dtype_to_tensor_dtype(array.dtype), shape
    )
    return made


def _output(name: str, given: Arrays, stated: dict[str, ValueInfoProto], declared: bool) -> ValueInfoProto:
    if name in given:
        return input_info(name, given, stated, declared)
    untyped: ValueInfoProto = require("onnx").ValueInfoProto(name=name)
    return stated.get(name, untyped)


def _tensors(graph: GraphProto) -> Iterator[TensorProto]:
    """Every tensor that a graph holds, in Constants and bodies too."""
    yield from graph.initializer
    for node in graph.node:
        for attribute in node.attribute:
            if attribute.HasField("t"):
                yield attribute.t
            yield from attribute.tensors
        for inner in subgraphs(node):
            yield from _tensors(inner)


def write_piece(piece: ModelProto, path: str, directory: Path, *, linked: bool) -> list[FileRef]:
    """Write *piece*, cut from a skeleton of the model at *path*, with its weights.

    What its nodes tell of their making goes.
    """
    for node in piece.graph.node:
        node.doc_string = ""
        del node.metadata_props[:]
    tensors = [t for t in _tensors(piece.graph) if t.external_data]
    if linked:
        for place in {_location(t) for t in tensors if not is_inline(t)}:
            link = directory / place
            link.parent.mkdir(parents=True, exist_ok=True)
            link.symlink_to(Path(path).parent.absolute() / place)
        tensors = [t for t in tensors if is_inline(t)]
    files = [directory / FILE_NAME]
    outside = sum(_length(t) for t in tensors) > LARGEST_INLINE and not linked
    if outside:
        files.append(directory / DATA_NAME)
        with files[1].open("wb") as data:
            for tensor in tensors:
                _move(tensor, path, data)
    else:
        for tensor in tensors:
            tensor.CopyFrom(fetch(tensor, path))
    files[0].write_bytes(piece.SerializeToString(deterministic=True))
    return [file_ref(p) for p in files]


def _location(tensor: TensorProto) -> str:
    return str(next(e.value for e in tensor.external_data if e.key == "location"))


def _length(tensor: TensorProto) -> int:
    stated = next((int(e.value) for e in tensor.external_data if e.key == "length"), 0)
    return (
        stated
        or int(np.prod(tensor.dims))
        * require("onnx.helper").tensor_dtype_to_np_dtype(tensor.data_type).itemsize
    )


def _move(tensor: TensorProto, path: str, data: BinaryIO) -> None:
    """Write the data of *tensor* to the open file *data*, one tensor at a time in memory."""
    raw = require("onnx.numpy_helper").to_array(fetch(tensor, path)).tobytes()
    data.write(bytes(-data.tell() % ALIGNMENT))
    entries = {"location": DATA_NAME, "offset": str(data.tell()), "length": str(len(raw))}
    data.write(raw)
    del tensor.external_data[:]
    for key, value in entries.items():
        tensor.external_data.add(key=key, value=value)


EXCERPT = Step.of(excerpt, RUNTIME)
