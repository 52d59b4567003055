"""The containers PyTorch writes, told apart and read without PyTorch.

Format facts: torch/serialization.py (zip since 1.6; before it a magic number and four more pickles;
before that a tar), torch/csrc/jit/serialization (TorchScript: ``code/``, ``constants.pkl``),
torch/export/pt2_archive/constants.py (``archive_format``, ``models/``), torch/package
(``.data/extern_modules``).
"""

from __future__ import annotations

import io
import re
import tarfile
from collections.abc import Sequence
from pathlib import Path
from typing import BinaryIO

from mnnprep.errors import RefusedError
from mnnprep.formats.pickles import PickledState, stored_tensors
from mnnprep.safety.archives import open_archive, read_member
from mnnprep.weights.pickle_scan import PickleError, PickleScan, scan_pickle

# 0x1950a86a20f9469cfc6c as a pickle's LONG1: torch.serialization.MAGIC_NUMBER
LEGACY_MAGIC = b"\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19."
RECORD_LIMIT = 1 << 28  # bytes of one record; a pickle without its tensors is far smaller

_CONTAINERS = frozenset({"dict", "list", "value", "collections.OrderedDict", "collections.defaultdict"})
_AGAIN = "download or save it again, and compare its size or checksum with the original's"


def is_legacy(head: bytes) -> bool:
    """Whether a file that begins so is in the format of torch.save before 1.6."""
    return head[:1] == b"\x80" and LEGACY_MAGIC in head[:32]


def zip_kind(path: Path) -> str:
    """The kind of a ZIP archive of PyTorch's, empty for any other.

    Raises:
        RefusedError: the file is damaged, or not one that mnnprep takes.
    """
    names = record_names(path)
    if any(re.search(r"(^|/)\.data/(extern_modules|python_version)$", name) for name in names):
        raise RefusedError(
            "this is a torch.package archive, which runs the Python code inside it when it is loaded",
            seen=path.name,
            next=(
                "write a factory file.py:callable that returns the module (torch.package.PackageImporter"
                " loads it), and give that"
            ),
        )
    if any("data/aotinductor/" in name.lower() for name in names):
        raise RefusedError(
            "this .pt2 archive holds machine code that AOTInductor compiled, which is never loaded",
            seen=next(name for name in names if "data/aotinductor/" in name.lower()),
            next="save the program itself with torch.export.save, and give that",
        )
    if any(re.search(r"(^|/)serialized_exported_program\.json$", name) for name in names):
        return "exported-program"
    if any(re.search(r"(^|/)archive_format$", name) for name in names):
        if any(re.search(r"(^|/)models/[^/]+\.json$", name) for name in names):
            return "exported-program"
        raise RefusedError(
            "this .pt2 archive does not contain an exported program (only what AOTInductor compiled)",
            seen=", ".join(names[:5]),
            next="save the program itself with torch.export.save, and give that",
        )
    if any(re.search(r"(^|/)code/", name) for name in names) and any(
        re.search(r"(^|/)(constants\.pkl|model\.json)$", name) for name in names
    ):
        return "torchscript"
    return pickle_kind(model_scan(path)) if model_record(names) else ""


def pickle_kind(scan: PickleScan) -> str:
    """``torch-weights`` for containers and tensors, ``torch-module`` for an object of any other class."""
    return (
        "torch-weights"
        if scan.root in _CONTAINERS or scan.root.startswith("torch._utils._rebuild_")
        else "torch-module"
    )


def record_names(path: Path) -> list[str]:
    """The names in a ZIP archive.

    Raises:
        RefusedError: :func:`open_archive` refuses the archive.
    """
    with open_archive(path) as archive:
        return archive.namelist()


def model_record(names: Sequence[str]) -> str:
    """The record with the pickled model or state dict, empty if there is none."""
    return next((name for name in names if re.fullmatch(r"([^/]+/)?data\.pkl", name)), "")


def read_record(path: Path, name: str) -> bytes:
    """One record of a ZIP archive.

    Raises:
        RefusedError: the record is damaged or unreasonably large.
    """
    with open_archive(path) as archive:
        return read_member(archive, name, RECORD_LIMIT)


def model_scan(path: Path) -> PickleScan:
    """The scan of the pickle that holds the model of a PyTorch file (zip, legacy or tar).

    Raises:
        RefusedError: the file is damaged, or not one that mnnprep takes.
    """
    try:
        return scan_pickle(_model_pickle(path))
    except PickleError as error:
        raise _damaged(path, error) from error


def model_state(path: Path) -> PickledState:
    """The tensors of a PyTorch file (zip, legacy or tar), with nothing of it executed.

    Raises:
        RefusedError: the file is damaged, or not one that mnnprep takes.
    """
    try:
        return stored_tensors(_model_pickle(path))
    except PickleError as error:
        raise _damaged(path, error) from error


def pickle_globals(path: Path) -> list[str]:
    """List the imports of a pickled model as dotted names in order of appearance; nothing is loaded.

    Takes a PyTorch file (zip, legacy or tar) or a plain pickle.

    Raises:
        RefusedError: the file is damaged.
    """
    return list(model_scan(path).globals)


def require_whole_legacy(path: Path) -> None:
    """Refuse a legacy file that ends before its tensors do.

    After the object come a pickled list of storage keys and, for each, its number of elements (8 bytes)
    and its raw elements (``_legacy_save``).
    """
    with path.open("rb") as file:
        try:
            for _ in range(3):
                scan_pickle(file)
            storages = stored_tensors(file).storages
            scan_pickle(file)  # the keys
        except PickleError as error:
            raise _damaged(path, error) from error
        needed = file.tell() + sum(8 + size for size in storages.values())
    size = path.stat().st_size
    if size < needed:
        raise RefusedError(
            "the PyTorch file is truncated",
            seen=f"{path.name}, {size} bytes, but its tensors need {needed}",
            next=_AGAIN,
        )


def tar_kind(path: Path) -> str:
    """The kind of a tar archive that an early torch.save wrote, empty for any other."""
    try:
        with tarfile.open(path, "r:") as archive:
            names = {name.removeprefix("./") for name in archive.getnames()}
    except (tarfile.TarError, OSError, EOFError) as error:
        raise RefusedError(
            "the tar archive is truncated or damaged", seen=f"{path.name}: {error}", next=_AGAIN
        ) from error
    return pickle_kind(model_scan(path)) if {"pickle", "storages", "tensors"} <= names else ""


def _model_pickle(path: Path) -> BinaryIO:
    """The pickle that holds the model, positioned at its start."""
    with path.open("rb") as file:
        head = file.read(512)
        if head[:4] == b"PK\x03\x04":
            name = model_record(record_names(path))
            if not name:
                raise PickleError("the archive has no data.pkl")
            return io.BytesIO(read_record(path, name))
        if head[257:262] == b"ustar":
            with tarfile.open(path, "r:") as archive:
                try:
                    member = next(
                        m
                        for m in archive.getmembers()
                        if m.name.removeprefix("./") == "pickle" and m.size < RECORD_LIMIT
                    )
                    inner = archive.extractfile(member)
                except (StopIteration, tarfile.TarError) as error:
                    raise PickleError("the archive has no pickle") from error
                return io.BytesIO(inner.read() if inner else b"")
        file.seek(0)
        if not is_legacy(head):
            return io.BytesIO(file.read(RECORD_LIMIT))
        for _ in range(3):  # magic number, protocol version, system information
            scan_pickle(file)
        start = file.tell()
        scan_pickle(file)
        end = file.tell()
        file.seek(start)
        return io.BytesIO(file.read(end - start))


def _damaged(path: Path, error: PickleError) -> RefusedError:
    return RefusedError("the PyTorch file is truncated or damaged", seen=f"{path.name}: {error}", next=_AGAIN)
