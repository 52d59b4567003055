"""What a file is: decided by its content, then by its suffix.

Format facts: each container's own page, cited where it is read; here TFLite's ``TFL3``
(tensorflow/lite/schema/schema.fbs), HDF5's signature (HDF5 file format specification), MNN's ``Net`` table
(schema/default/MNN.fbs), NetParameter (caffe.proto), GraphDef and NodeDef (tensorflow/core/framework).
"""

from __future__ import annotations

import re
from pathlib import Path

from mnnprep.core.beside import require_beside
from mnnprep.core.damage import AGAIN as _AGAIN
from mnnprep.core.damage import reading
from mnnprep.errors import RefusedError, UsageError
from mnnprep.formats import foreign, torch_files
from mnnprep.formats.caffe.versions import V0_TYPES
from mnnprep.formats.table import FORMATS
from mnnprep.formats.torch_files import pickle_globals
from mnnprep.text import listed
from mnnprep.weights.files import LocalFile
from mnnprep.weights.safetensors import looks_like_it, read_header
from mnnprep.wire.buffer import Buffer, mapped
from mnnprep.wire.flatbuffer import FlatbufferError, Table, follow, root, unpack, vector_length
from mnnprep.wire.protobuf import LENGTH, VARINT, WireError, fields

__all__ = ["identify", "pickle_globals"]

HEAD = 4096
_PROTOTXT = re.compile(
    r"^\s*(layers?|input_shape|state)\s*\{|^\s*(input|input_dim|force_backward)\s*:", re.MULTILINE
)
_SHARED_SUFFIXES = (".pt", ".pth")  # whatever torch.save or torch.jit.save wrote
_SUFFIX_TITLES = {
    suffix: row.title for row in FORMATS for suffix in row.suffixes if suffix != ".bin"
} | dict.fromkeys(_SHARED_SUFFIXES, "PyTorch file")


def identify(path: Path) -> str:
    """The kind (a row of `formats.table`) of the file or directory at *path*.

    Raises:
        UsageError: there is nothing at *path*.
        RefusedError: it is empty, an HTML page, a Git LFS pointer, a torch.package archive, truncated, or
        foreign;
            the message says what it looks like.
    """
    require_there(path)
    with reading(path):
        return _directory_kind(path) if path.is_dir() else _file_kind(path)


def require_there(path: str | Path) -> None:
    """Raises UsageError where nothing is at *path*, or nothing can be."""
    try:
        if Path(path).exists():
            return
    except (OSError, ValueError) as error:  # too long a name, a null byte
        raise UsageError(
            "this can't be a path", seen=f"{path}: {error}"[:300], next="give a model file"
        ) from error
    raise UsageError(
        "there is no such file or directory",
        seen=str(path),
        next="check the path; a factory is given as file.py:callable",
    )


def _directory_kind(path: Path) -> str:
    names = sorted(entry.name for entry in path.iterdir())
    if "saved_model.pb" in names or "saved_model.pbtxt" in names:
        require_beside(path / "saved_model.pb", path.rglob("*"))
        return "savedmodel"
    raise RefusedError(
        "the directory is no model that mnnprep knows",
        seen=f"{path.name}: {listed(names, 8) or 'empty'}",
        next="give the model file itself, or a SavedModel directory (with saved_model.pb)",
    )


def _file_kind(path: Path) -> str:
    if not path.is_file():
        raise RefusedError("this is neither a file nor a directory", seen=str(path), next="give a model file")
    size = path.stat().st_size
    if size == 0:
        raise RefusedError(
            "the file is empty", seen=f"{path.name}, 0 bytes", next="download or save it again"
        )
    with path.open("rb") as file:
        head = file.read(HEAD)
    foreign.refuse_html(path.name, head)
    foreign.refuse_lfs_pointer(path.name, head)
    text = foreign.as_text(head, size <= HEAD)
    kind = _text_kind(text) if text is not None else _binary_kind(path, head)
    if kind:
        return kind
    suffix = path.suffix.lower()
    expected = _SUFFIX_TITLES.get(suffix)
    if text is None and suffix in (".mnn", ".safetensors", ".pt", ".pth"):
        next_step = _AGAIN
    else:
        next_step = "give a model: " + ", ".join(
            dict.fromkeys(suffix for row in FORMATS if row.prepared for suffix in row.suffixes)
        )
    raise RefusedError(
        f"the file's name says {expected}, its content does not"
        if expected
        else "this is not a model that mnnprep knows",
        seen=f"{path.name}, {size} bytes: {foreign.describe(head, text)}",
        next=next_step,
    )


def _text_kind(text: str) -> str:
    return "caffe-prototxt" if _PROTOTXT.search(text) and not text.lstrip().startswith(("{", "<")) else ""


def _binary_kind(path: Path, head: bytes) -> str:
    """The kind of a binary file, empty for a foreign one."""
    if head.startswith((b"PK\x03\x04", b"PK\x05\x06")):
        return torch_files.zip_kind(path) or _other_zip_kind(path)
    if head.startswith(b"\x89HDF\r\n\x1a\n"):
        return "keras-h5"
    if head[4:8] == b"TFL3":
        return "tflite"
    if torch_files.is_legacy(head):
        torch_files.require_whole_legacy(path)
        return torch_files.pickle_kind(torch_files.model_scan(path))
    if head[257:262] == b"ustar":
        return torch_files.tar_kind(path)
    if any(head[offset : offset + len(magic)] == magic for offset, magic, _ in foreign.SIGNATURES):
        return ""
    if looks_like_it(head) or path.suffix.lower() == ".safetensors":
        read_header(LocalFile(path, path.name))
        return "safetensors"
    with mapped(path) as data:
        return _protobuf_kind(path, data) or ("mnn" if _is_mnn(path, data) else "")


def _other_zip_kind(path: Path) -> str:
    names = torch_files.record_names(path)
    if {"config.json", "metadata.json"} <= set(names):  # keras/src/saving/saving_lib.py
        return "keras"
    if names and all(name.endswith(".npy") for name in names):
        what = "a NumPy .npz archive; real inputs are given by --samples"
    else:
        what = f"a ZIP archive with {', '.join(names[:5]) or 'nothing in it'}"
    raise RefusedError(
        "this is not a model that mnnprep knows",
        seen=f"{path.name}: {what}",
        next="give a model file; unpack an archive first",
    )


def _protobuf_kind(path: Path, data: Buffer) -> str:
    """The kind of a protobuf message by the fields it has at the top; empty for anything else."""
    found: set[tuple[int, int]] = set()
    first_of: dict[int, tuple[int, int]] = {}
    cut: WireError | None = None
    try:
        for number, wire, first, last in fields(data, 0, len(data)):
            found.add((number, wire))
            first_of.setdefault(number, (first, last))
    except WireError as error:
        if not error.cut and path.suffix.lower() != ".onnx":
            return ""
        cut = error
        if error.field:
            found.add(error.field)
    kind = _message_kind(data, found, first_of)
    if (
        not kind
        and found
        and found <= _ONNX_FIELDS
        and (1, VARINT) in found
        and path.suffix.lower() == ".onnx"
    ):
        kind = "onnx"
        cut = cut or WireError(len(data), "the file ends before its graph", cut=True)
    if kind and cut is not None:
        title = next(row.title for row in FORMATS if row.kind == kind)
        raise RefusedError(
            f"the {title} is {'truncated' if cut.cut else 'malformed'} at byte {cut.offset}",
            seen=f"{path.name}, {len(data)} bytes: {cut.reason}",
            next=_AGAIN,
        )
    if not kind and path.name == "saved_model.pb" and {(1, VARINT), (2, LENGTH)} <= found:
        raise RefusedError(
            "saved_model.pb is one file of a SavedModel", seen=str(path), next="give the directory it is in"
        )
    return kind


_ONNX_FIELDS = frozenset(
    {(number, LENGTH) for number in (2, 3, 4, 6, 7, 8, 14, 20, 25, 26)} | {(1, VARINT), (5, VARINT)},
)


def _message_kind(data: Buffer, found: set[tuple[int, int]], first_of: dict[int, tuple[int, int]]) -> str:
    if (7, LENGTH) in found and found & {(1, VARINT), (8, LENGTH)} and (1, LENGTH) not in found:
        return "onnx"
    if (100, LENGTH) in found or (
        2 in first_of and {(4, LENGTH), (5, VARINT)} <= _fields_at(data, first_of[2])
    ):
        return "caffemodel"  # LayerParameter layer = 100; V1LayerParameter layers = 2 with name = 4, type = 5
    if 2 in first_of and _is_v0_layer(data, first_of[2]):
        return "caffemodel"
    if found and found <= {(1, LENGTH), (2, LENGTH), (3, VARINT), (4, LENGTH)} and 1 in first_of:
        return "frozen-graph" if {(1, LENGTH), (2, LENGTH)} <= _fields_at(data, first_of[1]) else ""
    if (
        {(1, LENGTH), (2, LENGTH), (3, LENGTH)} <= found
        and (1, LENGTH) in _fields_at(data, first_of[2])
        and (9, LENGTH) not in found
    ):
        return "tf-checkpoint"  # MetaGraphDef: meta_info_def = 1, graph_def = 2, saver_def = 3
    return ""


def _is_v0_layer(data: Buffer, extent: tuple[int, int]) -> bool:
    """Whether the message is a connection of Caffe's V0: V0LayerParameter layer = 1, with name = 1 and type =
    2, one of V0's.
    """
    try:
        layers = [
            (first, last)
            for number, wire, first, last in fields(data, *extent)
            if (number, wire) == (1, LENGTH)
        ]
        types = [
            data[a:b]
            for layer in layers[:1]
            for number, wire, a, b in fields(data, *layer)
            if (number, wire) == (2, LENGTH)
        ]
    except (WireError, IndexError):
        return False
    return any(kind.decode("latin-1") in V0_TYPES for kind in types)


def _fields_at(data: Buffer, extent: tuple[int, int]) -> set[tuple[int, int]]:
    """The fields of the message at *extent*; none when there is no message."""
    try:
        return {(number, wire) for number, wire, _, _ in fields(data, *extent)}
    except (WireError, IndexError):
        return set()


_OPLISTS, _TENSOR_NAMES = 3, 7  # fields of MNN's Net table


def _is_mnn(path: Path, data: Buffer) -> bool:
    """Whether the flatbuffer is MNN's Net: a root table with a non-empty, whole vector of operators.

    A flatbuffer has no signature of MNN's; a .mnn file whose vectors lie behind its end is refused as
    truncated.
    """
    try:
        net = root(data)
    except FlatbufferError:
        return False
    count = len(net.slots)
    if not _OPLISTS < count <= 32 or not net.slots[_OPLISTS] or not 4 < net.size <= 4 + 8 * count:
        return False
    if any(slot >= net.size for slot in net.slots):
        return False
    try:
        for field in (_OPLISTS, _TENSOR_NAMES):
            if net.place(field):
                _require_vector(net, field)
    except FlatbufferError as error:
        if path.suffix.lower() == ".mnn":
            raise RefusedError(
                "the MNN model is truncated", seen=f"{path.name}, {len(data)} bytes: {error}", next=_AGAIN
            ) from error
        return False
    return True


def _require_vector(net: Table, field: int) -> None:
    """Raise FlatbufferError unless a vector of offsets, and its first and last target, lie in the data."""
    start = follow(net.data, net.place(field))
    count = vector_length(net.data, start, 4)
    if not count:
        raise FlatbufferError("a list of 0 entries")
    for index in (0, count - 1):
        unpack("I", net.data, follow(net.data, start + 4 + 4 * index))
