"""Files: hashes, atomic writes, canonical JSON, arrays as npz."""

from __future__ import annotations

import hashlib
import json
import os
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

import msgspec
import numpy as np
import numpy.typing as npt

from mnnprep.core.faults import naming
from mnnprep.core.leftovers import unfinished
from mnnprep.core.reach import ReadPath

Arrays = dict[str, npt.NDArray[Any]]


class FileRef(msgspec.Struct, frozen=True):
    """A file that a step wrote or read: where, its sha256 (hex), its size in bytes."""

    path: ReadPath
    sha256: str
    size: int


def sha256(path: str | os.PathLike[str]) -> str:
    """The sha256 of a file's bytes, in hex; reads it once, in constant memory."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def file_ref(path: str | os.PathLike[str]) -> FileRef:
    return FileRef(str(path), sha256(path), os.path.getsize(path))


def printable(name: str) -> str:
    """A file's name as text: bytes that are no UTF-8 are written as escapes, so that JSON can hold it."""
    return name.encode("utf-8", "backslashreplace").decode()


def canonical_json(value: Any) -> bytes:
    """JSON with sorted keys and a final newline; the same value always gives the same bytes.

    Raises ValueError for NaN or an infinity, which JSON does not have.
    """
    text = json.dumps(msgspec.to_builtins(value), indent=2, sort_keys=True, ensure_ascii=False, allow_nan=False)
    return text.encode() + b"\n"


@contextmanager
def atomic_write(path: str | os.PathLike[str]) -> Iterator[BinaryIO]:
    """A binary file that appears under *path* only when whole and synced; else nothing is left.

    After a kill the next call for *path* takes away what is left.
    """
    target = Path(path)
    with unfinished(target) as (descriptor, name), naming(target):
        with os.fdopen(descriptor, "wb", closefd=False) as file:
            yield file
            file.flush()
            os.fsync(descriptor)
        os.chmod(name, 0o666 & ~_umask())
        os.replace(name, target)


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def save_arrays(path: str | os.PathLike[str], arrays: Mapping[str, npt.NDArray[Any]]) -> None:
    """Write *arrays* as an ``.npz`` (uncompressed) whose bytes depend on nothing but them.

    Unlike ``numpy.savez`` any key is allowed.  Keys are written in the order given.
    """
    with naming(path), zipfile.ZipFile(path, "w", zipfile.ZIP_STORED, allowZip64=True) as archive:
        for name, array in arrays.items():
            entry = zipfile.ZipInfo(f"{name}.npy")  # dated 1980-01-01
            with archive.open(entry, "w", force_zip64=True) as file:
                np.lib.format.write_array(file, np.asarray(array, order="C"), allow_pickle=False)


def load_arrays(path: str | os.PathLike[str], prefix: str = "") -> Arrays:
    """The arrays of an ``.npz`` whose names begin with *prefix*; pickled objects are refused (ValueError)."""
    with np.load(path, allow_pickle=False) as archive:
        return {name: archive[name] for name in archive.files if name.startswith(prefix)}
