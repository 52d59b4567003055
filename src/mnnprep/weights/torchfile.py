"""Files of torch.save, zip and legacy, and TorchScript archives, as plans.

Neither torch nor pickle's power is used.

Format facts: a torch zip holds ``NAME/data.pkl``, ``NAME/byteorder`` and ``NAME/data/KEY`` records
(``torch.serialization._save``), TorchScript also ``NAME/constants.pkl`` and ``NAME/code/``; the legacy format
is five pickles (magic number, protocol, system, object, storage keys) and, for each key in order, 8 bytes
with the number of elements and the elements (``_legacy_save``).  A zip record's bytes begin 30 bytes and its
two variable fields after its local header (APPNOTE.TXT 4.3.7).
"""

from __future__ import annotations

import io
import pickle
import re
import struct
import zipfile

from mnnprep.errors import RefusedError
from mnnprep.safety.archives import check_directory, read_member
from mnnprep.weights import safe_unpickler as inert
from mnnprep.weights.content import Content
from mnnprep.weights.dtypes import byte_size
from mnnprep.weights.files import File, Lazy, Window
from mnnprep.weights.plan import Tensor
from mnnprep.weights.safe_unpickler import Unpickled

PICKLE_LIMIT = 1 << 28  # bytes of a pickle without its tensors
CLASS = re.compile(r"^class (\w+)\(Module\):\n((?:  .*\n|\n)*)", re.MULTILINE)
MEMBERS = re.compile(r"^  __(?:parameters|buffers)__ = \[(.*)\]$", re.MULTILINE)


class _Record(File):
    """A stored zip record; where its bytes begin is read when they are asked for."""

    def __init__(self, parent: File, entry: zipfile.ZipInfo) -> None:
        self.name = parent.name
        self.size = entry.file_size
        self._parent = parent
        self._entry = entry
        self._window: Window | None = None

    def _bytes(self) -> Window:
        if self._window is None:
            head = self._parent.read(self._entry.header_offset, 30)
            if head[:4] != b"PK\x03\x04":
                raise RefusedError(
                    "a record of the archive is not where its directory says",
                    seen=self._entry.filename,
                    next="download it again",
                )
            begin = self._entry.header_offset + 30 + sum(struct.unpack("<2H", head[26:30]))
            if begin + self.size > self._parent.size:
                raise RefusedError(
                    "a record of the archive reaches beyond the file",
                    seen=self._entry.filename,
                    next="download it again",
                )
            self._window = Window(self._parent, begin, self.size)
        return self._window

    def _read(self, offset: int, count: int) -> bytes:
        return self._bytes().read(offset, count)

    def read_into(self, offset: int, view: memoryview) -> None:
        self._bytes().read_into(offset, view)

    def locate(self, offset: int) -> tuple[File, int]:
        return self._bytes().locate(offset)


class Archive:
    """The records of a torch zip in *file*. Raises zipfile's errors, and RefusedError for another zip."""

    def __init__(self, file: File) -> None:
        self._file = file
        self._zip = zipfile.ZipFile(file.stream())
        check_directory(self._zip, file.name, file.size)
        entries = self._zip.infolist()
        self.root = entries[0].filename.split("/", 1)[0] if entries else ""
        self.records = {entry.filename.removeprefix(f"{self.root}/"): entry for entry in entries}
        if len(self.records) != len(entries):
            raise zipfile.BadZipFile("two records have one name")
        if "data.pkl" not in self.records:
            raise RefusedError(
                "this zip was not written by torch.save",
                seen=f"{file.name}: no {self.root}/data.pkl among its {len(entries)} records",
                next="give a file written by torch.save(model.state_dict(), FILE)",
            )

    @property
    def is_script(self) -> bool:
        """Whether the archive is a TorchScript program."""
        return "constants.pkl" in self.records

    def read(self, name: str) -> bytes:
        """A small record."""
        return read_member(self._zip, self.records[name].filename, PICKLE_LIMIT)

    def record(self, name: str) -> File:
        """A record's bytes as a file."""
        entry = self.records[name]
        if entry.compress_type == zipfile.ZIP_STORED:
            return _Record(self._file, entry)
        return Lazy(
            f"{self._file.name}:{name}",
            entry.file_size,
            lambda: read_member(self._zip, entry.filename, entry.file_size),
        )

    def load(self, foreign: set[str]) -> Unpickled:
        """The object of ``data.pkl``."""
        if "byteorder" in self.records and self.read("byteorder") != b"little":
            raise RefusedError(
                "this checkpoint was written on a big-endian machine",
                seen=self._file.name,
                next="save it again on this machine",
            )
        storages: dict[str, File] = {}

        def locate(key: str, element: str, count: int, view: tuple[str, int, int] | None) -> File:
            name = next((n for n in (f"data/{key}", key) if n in self.records), "")
            size = byte_size(element or "uint8", count)
            found = self.records[name].file_size if name else None
            if found != size:
                raise pickle.UnpicklingError(f"storage {key} claims {size} bytes; its record holds {found}")
            return storages.setdefault(key, self.record(name))

        return inert.load(io.BytesIO(self.read("data.pkl")), locate, foreign)


def read_zip(file: File, *, script: bool = False) -> Content:
    """Read a zip that torch.save wrote or, with *script*, a TorchScript archive.

    The weights of an archive get the names of its state dict.
    """
    archive = Archive(file)
    foreign: set[str] = set()
    if not archive.is_script:
        return Content(archive.load(foreign), "torch zip", frozenset(foreign))
    if not script:
        raise RefusedError(
            "this is a TorchScript program, not a checkpoint",
            seen=file.name,
            next=(
                "give it as the source itself, without a factory; or save its weights with"
                " torch.save(model.state_dict(), FILE)"
            ),
        )
    return Content(
        _members(archive.load(foreign), "", _declared(archive)),
        "TorchScript",
        notes=("the parameters and buffers of a TorchScript program",),
    )


def _declared(archive: Archive) -> dict[str, frozenset[str]]:
    """The names of parameters and buffers by class, as the archive's code declares them."""
    declared = {}
    for name in archive.records:
        if name.startswith("code/") and name.endswith(".py"):
            module = name.removeprefix("code/").removesuffix(".py").replace("/", ".")
            for found in CLASS.finditer(archive.read(name).decode()):
                members = ", ".join(MEMBERS.findall(found[2]))
                declared[f"{module}.{found[1]}"] = frozenset(re.findall(r'"([^"]*)"', members))
    return declared


def _members(module: Unpickled, prefix: str, declared: dict[str, frozenset[str]]) -> dict[str, Tensor]:
    tensors: dict[str, Tensor] = {}
    state = module.state if isinstance(module, inert.Foreign) and isinstance(module.state, dict) else {}
    own = declared.get(module.qualified, frozenset()) if state else frozenset()
    for name, value in state.items():
        if isinstance(value, Tensor) and name in own:
            tensors[prefix + name] = value
        elif isinstance(value, inert.Foreign):
            tensors.update(_members(value, f"{prefix}{name}.", declared))
    return tensors


def read_legacy(file: File) -> Content:
    """A file that torch.save wrote before 1.6, or with ``_use_new_zipfile_serialization=False``."""
    stream = file.stream()
    foreign: set[str] = set()
    storages: dict[str, tuple[Window, int]] = {}

    def locate(key: str, element: str, count: int, view: tuple[str, int, int] | None) -> File:
        item = byte_size(element or "uint8", 1)
        whole = storages.setdefault(key, (Window(file, -1, count * item), item))[0]
        if view is None:
            return whole
        if view[1] < 0 or view[2] < 0 or (view[1] + view[2]) * item > whole.size:
            raise pickle.UnpicklingError(
                f"a view of {view[2]} elements at {view[1]} reaches beyond its storage of {whole.size} bytes"
            )
        return Window(whole, view[1] * item, view[2] * item)

    inert.load(stream)
    inert.load(stream)
    system = inert.load(stream)
    if (
        isinstance(system, dict)
        and system.get("little_endian", system.get(b"little_endian", True)) is not True
    ):
        raise RefusedError(
            "this checkpoint was written on a big-endian machine",
            seen=file.name,
            next="save it again on this machine",
        )
    tree = inert.load(stream, locate, foreign)
    keys = [key.decode("latin1") if isinstance(key, bytes) else str(key) for key in inert.load(stream)]
    if set(keys) != set(storages) or len(keys) != len(storages):
        raise pickle.UnpicklingError(f"the file lists {len(keys)} storages, its tensors need {len(storages)}")
    at = stream.tell()
    for key in keys:
        window, item = storages[key]
        count = struct.unpack("<q", file.read(at, 8))[0]
        if count * item != window.size:
            raise pickle.UnpicklingError(
                f"storage {key} claims {window.size} bytes; its record holds {count * item}"
            )
        window.base = at + 8
        at += 8 + window.size
        if at > file.size:
            raise EOFError(f"the file ends at {file.size} bytes, its tensors need at least {at}")
    return Content(tree, "torch legacy", frozenset(foreign))
