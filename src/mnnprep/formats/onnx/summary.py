"""An ONNX file's own account of itself, as a typed summary, and whether anything can load it.

Format facts: onnx/docs/ExternalData.md (location relative to the model, offset, length).
"""

from __future__ import annotations

from pathlib import Path, PurePosixPath, PureWindowsPath

import msgspec

from mnnprep.errors import RefusedError
from mnnprep.formats.onnx.expansion import MOST_NODES
from mnnprep.formats.tensor_info import TensorInfo

PROTOBUF_LIMIT = 1 << 31  # a message must be smaller (protobuf.dev/programming-guides/proto-limits)


class Tally(msgspec.Struct, frozen=True):
    """How many tensors, elements and bytes."""

    tensors: int = 0
    elements: int = 0
    bytes: int = 0


class ExternalFile(msgspec.Struct, frozen=True):
    """A file of tensor data beside the model: ``size`` is None if it is missing or not looked for.

    ``needed`` is the size that the tensors in it require; ``problem`` says why it can't be used.
    """

    location: str
    tensors: int
    needed: int
    size: int | None = None
    problem: str = ""


class Tensors(msgspec.Struct, frozen=True):
    """A group of tensors: ``total`` and the same by dtype."""

    total: Tally = Tally()
    by_dtype: dict[str, Tally] = msgspec.field(default_factory=dict)


class OpCount(msgspec.Struct, frozen=True):
    """How often an operator stands in the file; ``domain`` is empty for ONNX's own (``ai.onnx``)."""

    domain: str
    op_type: str
    count: int


class Leftover(msgspec.Struct, frozen=True):
    """A part of the graph that behaves as in training; ``node`` is its place."""

    op_type: str
    node: str
    reason: str


class OnnxSummary(msgspec.Struct, frozen=True, kw_only=True):
    """An ONNX file's own account of itself.

    ``inputs`` are the graph inputs without an initializer; those with one, which a caller may leave out,
    are named in ``defaulted_inputs``.  ``initializers`` counts those of the graph and of its subgraphs;
    ``constants`` the tensors in attributes (Constant nodes).  ``ops`` counts nodes as written: subgraphs and
    local functions included, a function once however often it is called.  ``int32_data`` names the tensors
    of less than 32 bits whose values are kept in that field.  ``nodes`` counts them with every function
    inlined (:mod:`mnnprep.formats.onnx.expansion`).
    """

    ir_version: int
    producer: str
    opsets: dict[str, int]
    inputs: tuple[TensorInfo, ...]
    outputs: tuple[TensorInfo, ...]
    defaulted_inputs: tuple[str, ...]
    initializers: Tensors
    constants: Tensors
    external: tuple[ExternalFile, ...]
    int32_data: tuple[str, ...]
    nodes: int
    ops: tuple[OpCount, ...]
    functions: tuple[str, ...]
    leftovers: tuple[Leftover, ...]
    metadata: dict[str, str]
    problems: tuple[str, ...]

    @property
    def opset(self) -> int | None:
        """The version of ONNX's own operator set, None if the model imports none."""
        return self.opsets.get("")


def require_loadable(summary: OnnxSummary, size: int) -> None:
    """Refuse an ONNX file that nothing can load.

    It has a *size* (bytes) of 2 GiB or more, functions without end, or external data that is not there.

    Raises:
        RefusedError: with the remedy.
    """
    if size >= PROTOBUF_LIMIT:
        raise RefusedError(
            "the ONNX file is larger than protobuf can hold in one message (2 GiB)",
            seen=f"{size} bytes in one file",
            next=(
                "save it again with external data: onnx.save_model(model, path, save_as_external_data=True,"
                " location='model.onnx.data')"
            ),
        )
    if summary.nodes > MOST_NODES:
        raise RefusedError(
            "the functions of the ONNX file unfold to more nodes than any runtime takes",
            seen=f"more than {MOST_NODES:,} nodes",
            next="export it without functions that call others many times over",
        )
    broken = [file for file in summary.external if file.problem]
    if broken:
        raise RefusedError(
            "the external data of the ONNX file can't be used",
            seen="; ".join(f"{file.location}: {file.problem}" for file in broken[:5]),
            next=(
                "put the data files beside the model under these names, or save it again with"
                " onnx.save_model(..., save_as_external_data=True)"
            ),
        )


def external_file(directory: Path, location: str, tensors: int, needed: int) -> ExternalFile:
    """Look for a file of tensor data.

    One outside the model's directory is not looked for (docs/ExternalData.md).
    """
    parts = PurePosixPath(location).parts + PureWindowsPath(location).parts
    if PurePosixPath(location).is_absolute() or PureWindowsPath(location).anchor:
        return ExternalFile(
            location, tensors, needed, problem="an absolute path; it must be relative to the model"
        )
    if ".." in parts:
        return ExternalFile(location, tensors, needed, problem="a path that leaves the model's directory")
    try:
        path = directory / location
        size = path.stat().st_size if path.is_file() else None
    except (OSError, ValueError):  # a name that no file can have
        size = None
    if size is None:
        return ExternalFile(location, tensors, needed, problem="missing")
    problem = f"too short: {size} bytes, but {needed} are needed" if size < needed else ""
    return ExternalFile(location, tensors, needed, size, problem)
