"""The parts of a Keras file: its configuration, its weights, what wrote it.

They are read without Keras, each refused if it is damaged.

Format facts: keras/src/saving/saving_lib.py (config.json, metadata.json and model.weights.h5 in a zip),
keras/src/legacy/saving/legacy_h5_format.py (the attributes ``model_config`` and ``keras_version`` of the
file's root; a file without the first holds weights alone).
"""

from __future__ import annotations

import io
import json
import shutil
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

from mnnprep.deps import require
from mnnprep.errors import UsageError
from mnnprep.formats.tensorflow.keras_judge import damaged
from mnnprep.safety.archives import open_archive, read_member
from mnnprep.weights.hdf5_guard import hdf5_file

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer

CONFIG, METADATA, WEIGHTS = "config.json", "metadata.json", "model.weights.h5"
LIMIT = 64 << 20  # bytes of JSON; that of the largest networks takes less than one
# bytes before a member's name (PKWARE's APPNOTE 4.3.7), the lengths of name and extra field at 26 and 28
_LOCAL_HEADER = 30


@dataclass(frozen=True)
class KerasFile:
    """A Keras file as read; ``config`` is the outermost model's.

    ``version`` is that of the Keras that wrote the file, empty if it does not say.
    """

    config: dict[str, Any]
    version: str


def read_keras(path: Path, kind: str) -> KerasFile:
    """Read the file at *path*: a ``.keras`` archive (*kind* ``keras``) or a full-model HDF5 file.

    Raises:
        RefusedError: the file is damaged, or is HDF5 that takes data from outside itself.
        UsageError: weights alone.
    """
    if kind == "keras":
        with open_archive(path) as archive:
            about = parsed(read_member(archive, METADATA, LIMIT), METADATA)
            return KerasFile(
                parsed(read_member(archive, CONFIG, LIMIT), CONFIG), _text(about.get("keras_version"))
            )
    with hdf5_file(path, path.name, path.stat().st_size) as book:
        config, version = book.attrs.get("model_config"), book.attrs.get("keras_version")
    if config is None:
        raise UsageError(
            "this file holds weights only, without a model",
            seen=f"{path.name}: no attribute model_config",
            next="give the code that builds the model, and this file as its weights: "
            f"mnnprep prepare file.py:callable --weights {path.name} -o DIR",
        )
    if not isinstance(config, str | bytes):
        raise damaged(f"model_config of the type {type(config).__name__}")
    return KerasFile(parsed(config, "model_config"), _text(version))


def parsed(content: str | bytes, name: str) -> dict[str, Any]:
    """The JSON object in *content*.

    Raises:
        RefusedError: it holds anything else.
    """
    try:
        value = json.loads(content)
    except (ValueError, RecursionError) as error:
        reason = "nested too deep" if isinstance(error, RecursionError) else str(error)
        raise damaged(f"{name}: {reason}"[:300]) from error
    if not isinstance(value, dict):
        raise damaged(f"{name} is a {type(value).__name__}, not an object")
    return value


def refuse_foreign_weights(path: Path, kind: str) -> None:
    """Refuse weights that a Keras file takes from elsewhere, or that unfold without bound.

    The file is a ``.keras`` archive (*kind* ``keras``) or an HDF5 file.
    """
    with weights_in(path) if kind == "keras" else hdf5_file(path, path.name, path.stat().st_size):
        return


def write_with_config(source: Path, target: Path, kind: str, config: object) -> None:
    """Copy the file at *source* to *target* with another configuration."""
    content = json.dumps(config)
    if kind != "keras":
        shutil.copyfile(source, target)
        with require("h5py").File(target, "r+") as book:
            book.attrs["model_config"] = content
        return
    with open_archive(source) as archive, zipfile.ZipFile(target, "w") as made:
        for info in archive.infolist():
            if info.filename == CONFIG:
                continue
            with (
                archive.open(info) as reader,
                made.open(zipfile.ZipInfo(info.filename), "w", force_zip64=True) as writer,
            ):
                shutil.copyfileobj(reader, writer, 1 << 20)
        made.writestr(CONFIG, content)


@contextmanager
def weights_in(path: Path) -> Iterator[Any]:
    """The weights in a ``.keras`` archive as an ``h5py.File`` (see `hdf5_file`).

    Raises:
        RefusedError: the archive has none.
    """
    with open_archive(path) as archive:
        if WEIGHTS not in archive.namelist():
            raise damaged(f"{path.name} holds no {WEIGHTS}")
        info = archive.getinfo(WEIGHTS)
        with path.open("rb") as file:
            stream = _stream(archive, info, file)
            with hdf5_file(stream, f"{path.name}/{info.filename}", info.file_size) as book:
                yield book


def _stream(archive: zipfile.ZipFile, info: zipfile.ZipInfo, file: BinaryIO) -> BinaryIO:
    """A member to seek in: in place where it is stored as it is (Keras does that), else unpacked."""
    if info.compress_type != zipfile.ZIP_STORED:
        return io.BytesIO(read_member(archive, info.filename, info.file_size))
    file.seek(info.header_offset)
    header = file.read(_LOCAL_HEADER)
    start = (
        info.header_offset
        + _LOCAL_HEADER
        + sum(int.from_bytes(header[at : at + 2], "little") for at in (26, 28))
    )
    return io.BufferedReader(_Window(file, start, info.file_size))


class _Window(io.RawIOBase):
    """The bytes from *start* to *start* + *size* of a file."""

    def __init__(self, file: BinaryIO, start: int, size: int) -> None:
        self._file, self._start, self._size, self._at = file, start, size, 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        self._at = {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: self._size}[whence] + offset
        return self._at

    def tell(self) -> int:
        return self._at

    def readinto(self, buffer: WriteableBuffer) -> int:
        self._file.seek(self._start + self._at)
        view = memoryview(buffer)
        data = self._file.read(max(0, min(len(view), self._size - self._at)))
        view[: len(data)] = data
        self._at += len(data)
        return len(data)


def _text(value: object) -> str:
    return (
        value.decode("utf-8", "replace")
        if isinstance(value, bytes)
        else value
        if isinstance(value, str)
        else ""
    )
