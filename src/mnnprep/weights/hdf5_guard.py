"""HDF5 files that are themselves alone.

They are opened, and refused if they would take bytes from elsewhere or unfold without bound.

Format facts (the HDF5 File Format Specification): a link is hard, soft or external; a dataset's bytes may lie
in other files (external storage, message 0x0007) or be a view of other datasets (virtual layout); the chunks
of a dataset that were never written read as its fill value, so that a shape costs nothing to declare.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

from mnnprep.deps import require
from mnnprep.errors import RefusedError
from mnnprep.safety.archives import unfolded_limit

if TYPE_CHECKING:
    import h5py

MOST_OBJECTS = 1_000_000


@contextmanager
def hdf5_file(source: Path | BinaryIO, name: str, size: int) -> Iterator[Any]:
    """Open the file at *source* of *size* bytes as an ``h5py.File`` whose objects are its own.

    Errors call it *name*.

    Raises:
        RefusedError: h5py can't read the file (also if that shows while it is open), or `refuse_outside`
            refuses it.
    """
    h5py = require("h5py")
    try:
        with h5py.File(source, "r") as book:
            refuse_outside(book, name, size)
            yield book
    except (OSError, RuntimeError, KeyError, ValueError, TypeError, UnicodeError) as error:
        reason = (str(error).strip().splitlines() or [""])[0][:300]
        raise RefusedError(
            "the HDF5 file can't be read: it is truncated or damaged",
            seen=f"{name} ({size} bytes): {reason}",
            next="download or save it again",
        ) from error


def refuse_outside(book: h5py.File, name: str, size: int) -> None:
    """Refuse a file that takes bytes from elsewhere, or that states more than it can hold.

    It may have a link that is not hard, or a dataset that is virtual or stored in other files.

    Nothing of a dataset is read. *size* is the file's, in bytes.
    """
    declared = 0
    for path, link, node in _objects(book):
        if link:
            raise _refused(f"{link} {path}", name)
        if node is None:
            continue
        if node.external:
            raise _refused(f"the dataset {path}, whose bytes lie in {node.external[0][0]!r}", name)
        if node.is_virtual:
            raise _refused(f"the dataset {path}, which is a view of others", name)
        declared += math.prod(node.shape or ()) * node.dtype.itemsize
        if declared > unfolded_limit(size):
            raise RefusedError(
                "the HDF5 file declares far more than it holds",
                seen=f"{name}: {declared} bytes and more in {size}, at {path}",
                next="save the model again, without compression or unwritten datasets",
            )


def _objects(book: h5py.File) -> Iterator[tuple[str, str, h5py.Dataset | h5py.Group]]:
    """Every link by its path: what kind it is unless it is hard, and the dataset behind it, if it is one.

    Groups come once.
    """
    h5py = require("h5py")
    groups = [("", book)]
    seen = {_address(book)}
    count = 0
    while groups:
        place, group = groups.pop()
        for key in group:
            path = f"{place}/{key}".lstrip("/")
            link = group.get(key, getlink=True)
            if not isinstance(link, h5py.HardLink):
                yield (
                    path,
                    "the link to another place"
                    if isinstance(link, h5py.SoftLink)
                    else "the link to another file",
                    None,
                )
                continue
            node = group[key]
            if _address(node) in seen:
                continue
            seen.add(_address(node))
            count += 1
            if count > MOST_OBJECTS:
                raise RefusedError(
                    "the HDF5 file holds too many objects",
                    seen=f"more than {MOST_OBJECTS}",
                    next="save the model again",
                )
            if isinstance(node, h5py.Group):
                groups.append((path, node))
            yield path, "", node if isinstance(node, h5py.Dataset) else None


def _address(node: h5py.Dataset | h5py.Group) -> int:
    return int(require("h5py").h5o.get_info(node.id).addr)


def _refused(seen: str, name: str) -> RefusedError:
    return RefusedError(
        "the HDF5 file takes data from outside itself",
        seen=f"{name}: {seen}",
        next="save the model again, so that one file holds its own weights",
    )
