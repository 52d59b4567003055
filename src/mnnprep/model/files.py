"""Files: hashes, atomic writes, canonical JSON, arrays as npz."""

from __future__ import annotations

import hashlib
import json
import math
import os
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO, cast

import msgspec
import numpy as np
import numpy.typing as npt

from mnnprep.errors import RefusedError
from mnnprep.model.reach import ReadPath
from mnnprep.safety.archives import open_archive
from mnnprep.safety.faults import naming
from mnnprep.safety.leftovers import unfinished

Arrays = dict[str, npt.NDArray[Any]]


class FileRef(msgspec.Struct, frozen=True):
    """A file that a step wrote or read: where, its sha256 (hex), its size in bytes."""

    path: ReadPath
    sha256: str
    size: int


LONGEST_NAME = (1 << 16) - 64  # bytes: a ZIP archive holds a name's length in 16 bits (APPNOTE.TXT 4.3.7)


def sha256(path: str | os.PathLike[str]) -> str:
    """The sha256 of a file's bytes, in hex; reads it once, in constant memory."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def file_ref(path: str | os.PathLike[str]) -> FileRef:
    """Return the file at *path* with its sha256 and size, read now."""
    return FileRef(str(path), sha256(path), os.path.getsize(path))


def canonical_json(value: object) -> bytes:
    """JSON with sorted keys and a final newline; the same value always gives the same bytes.

    Raises:
        ValueError: NaN or an infinity, which JSON does not have.
    """
    text = json.dumps(
        msgspec.to_builtins(value), indent=2, sort_keys=True, ensure_ascii=False, allow_nan=False
    )
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

    Unlike ``numpy.savez`` any key is allowed that an archive can hold.  Keys are written in the order given.

    Raises:
        RefusedError: a key is longer than a name in a ZIP archive may be.
    """
    for name in arrays:
        if len(name.encode(errors="surrogatepass")) > LONGEST_NAME:
            raise RefusedError(
                "a tensor's name is too long to be stored",
                seen=f"{name[:40]!r}..., {len(name)} characters",
                next=f"export the model with names of at most {LONGEST_NAME} bytes",
            )
    with naming(path), zipfile.ZipFile(path, "w", zipfile.ZIP_STORED, allowZip64=True) as archive:
        for name, array in arrays.items():
            entry = zipfile.ZipInfo(f"{name}.npy")  # dated 1980-01-01
            with archive.open(entry, "w", force_zip64=True) as file:
                np.lib.format.write_array(file, np.asarray(array, order="C"), allow_pickle=False)


def load_arrays(path: str | os.PathLike[str], prefix: str = "") -> Arrays:
    """The arrays of an ``.npz`` whose names begin with *prefix*.

    Raises:
        ValueError: the content is pickled objects, or no array.
        RefusedError: :func:`open_archive` refuses the archive.
    """
    arrays: Arrays = {}
    with open_archive(Path(path)) as archive:
        for entry in archive.infolist():
            name = entry.filename.removesuffix(".npy")
            if name.startswith(prefix):
                with archive.open(entry) as file:
                    arrays[name] = read_array(cast("BinaryIO", file), entry.file_size)
    return arrays


def read_array(file: BinaryIO, size: int) -> npt.NDArray[Any]:
    """Return the array that an ``.npy`` stream of *size* bytes holds.

    Its shape is believed only if its elements are there.

    Format facts: numpy.lib.format (version 3.0 is for names of fields, which a tensor has none of).

    Raises:
        ValueError: the content is pickled objects, not an array, or of another shape than its bytes.
    """
    version = np.lib.format.read_magic(file)
    if version not in ((1, 0), (2, 0)):
        raise ValueError(f"an .npy of the version {version[0]}.{version[1]}")
    read_header = (
        np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    )
    try:
        shape, fortran, dtype = read_header(file)
    except Exception as error:  # it is read as Python, with whatever that raises
        raise ValueError(f"a header that can't be read ({type(error).__name__})") from error
    if dtype.hasobject or dtype.itemsize == 0:
        raise ValueError(f"an array of {dtype}, which is no tensor")
    count = math.prod(shape)
    if min(shape, default=0) < 0 or count * dtype.itemsize > size:
        raise ValueError(f"an array of the shape {list(shape)} in {size} bytes")
    data = bytearray(count * dtype.itemsize)
    view = memoryview(data)
    while view and (got := file.readinto(view)):  # type: ignore[attr-defined]
        view = view[got:]
    if view:
        raise ValueError(f"an array of the shape {list(shape)} that ends {len(view)} bytes early")
    array = np.frombuffer(data, dtype, count)
    return array.reshape(shape[::-1]).T if fortran else array.reshape(shape)
