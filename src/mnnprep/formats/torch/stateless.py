"""Whether loading and running a PyTorch program touches anything but its tensors.

The file says so, before torch opens it.

A TorchScript archive is judged by its code, by the classes that its pickles name, and by what stands beside
them; an exported program by its JSON and the other records of its archive. Names of records are compared
without regard to case, as torch's own reader finds them (miniz: ``mz_zip_reader_locate_file`` without
``MZ_ZIP_FLAG_CASE_SENSITIVE``).
"""

from __future__ import annotations

import io
import re
import zipfile
from collections.abc import Iterator
from pathlib import Path

from mnnprep.errors import RefusedError
from mnnprep.formats.torch.operators import CLASSES
from mnnprep.formats.torch.program_json import program_faults
from mnnprep.formats.torch.script_code import Fault, script_faults
from mnnprep.safety.archives import ZIP_DAMAGE, check_archive, open_archive, read_member
from mnnprep.weights import dtypes
from mnnprep.weights.pickle_scan import PickleError, scan_pickle
from mnnprep.weights.safe_unpickler import BUILDERS

JUDGED = ("torchscript", "exported-program")  # the kinds of source that hold a program

CODE_LIMIT = 64 << 20  # bytes of all code in one archive
JSON_LIMIT = 256 << 20
PICKLE_LIMIT = 256 << 20

# What TorchScript's own unpickler resolves beside the archive's classes
# (torch/csrc/jit/serialization/unpickler.cpp: readGlobal).
_SCRIPT_GLOBALS = re.compile(
    r"(torch\.jit\._pickle|torch\._utils|torch|torch\.storage|collections|__builtin__|builtins)\.\w+"
)
# By the folders below the archive's own (torch/export/pt2_archive/constants.py), and before PyTorch 2.8
# without one.
_PROGRAM = re.compile(r"models/[^/]+\.json")
_TENSORS = re.compile(r"data/(weights|constants|sample_inputs)/[^/]+\.pt")
_PLAIN = re.compile(
    r"archive_format|archive_version|archive_type|byteorder|version|\.data/\w+|\.format_version"
    r"|\.storage_alignment|extra/.*|data/weights/(weight_\d+|[^/]+_weights_config\.json)"
    r"|data/constants/(tensor_\d+|[^/]+_constants_config\.json)"
)
_OLD_PROGRAM = re.compile(r"serialized_exported_program\.json")
_OLD_TENSORS = re.compile(r"serialized_(state_dict|constants|example_inputs)\.(pt|json)")
_OLD_PLAIN = re.compile("version")


def require_stateless(path: Path, kind: str, known: frozenset[str] = frozenset()) -> None:
    """Refuse a program that does more than compute, or may do; *kind* is one of :data:`JUDGED`.

    *known* are names of operators as in :func:`script_faults`. Raises RefusedError, also for a damaged
    archive.
    """
    first = next(_script(path, known) if kind == "torchscript" else _program(path), None)
    if first is not None and first.endless:
        raise RefusedError(
            "judging by its file, loading this program may never end",
            seen=f"{first.place}: {first.what}",
            next="pass --trust if you trust where it comes from, or give a factory and a state dict",
        )
    if first is not None:
        raise RefusedError(
            "judging by its file, this program may do more than compute: loading or running it could touch"
            " other files or run code",
            seen=f"{first.place}: {first.what}, which is not known to be without side effects",
            next="pass --trust if you trust where it comes from, or give a factory and a state dict",
        )


def _records(archive: zipfile.ZipFile) -> dict[str, str]:
    """The names in the archive by what torch calls them: without the outermost folder, in lower case.

    Raises:
        RefusedError: the file is damaged, or not one that mnnprep takes.
    """
    found: dict[str, str] = {}
    for name in archive.namelist():
        key = name.partition("/")[2].lower()
        if key in found:
            raise RefusedError(
                "torch gives two records of the archive the same name",
                seen=f"{found[key]} and {name}",
                next="save it again",
            )
        found[key] = name
    return found


def _script(path: Path, known: frozenset[str]) -> Iterator[Fault]:
    with open_archive(path) as archive:
        records = _records(archive)
        if "model.json" in records:
            yield Fault(records["model.json"], "a program in the format used before PyTorch 1.4")
        names = [name for key, name in records.items() if key.startswith("code/") and key.endswith(".py")]
        if (size := sum(archive.getinfo(name).file_size for name in names)) > CODE_LIMIT:
            raise RefusedError(
                "the program's code is too large to judge",
                seen=f"{size} bytes, and {CODE_LIMIT} are read",
                next="split the model",
            )
        code = {name: read_member(archive, name, CODE_LIMIT) for name in names}
        for key, name in records.items():
            if key.endswith(".pkl"):
                yield from (
                    Fault(name, f"the class {found}")
                    for found in _globals(name, read_member(archive, name, PICKLE_LIMIT))
                    if not _script_global(found)
                )
    yield from script_faults(code, known)


def _script_global(name: str) -> bool:
    if name.startswith("__torch__.torch.classes."):
        return name.removeprefix("__torch__.torch.classes.") in CLASSES
    return name.startswith("__torch__.") or bool(_SCRIPT_GLOBALS.fullmatch(name))


def _globals(name: str, data: bytes) -> tuple[str, ...]:
    try:
        return scan_pickle(io.BytesIO(data)).globals
    except PickleError as error:
        raise RefusedError(
            f"the record {name} is damaged", seen=str(error), next="download or save it again"
        ) from error


def _program(path: Path) -> Iterator[Fault]:
    with open_archive(path) as archive:
        names = archive.namelist()
        if any(
            "/" not in name for name in names
        ):  # of the two readers that torch has, only the older one finds anything in it
            program, tensors, plain, keys = (
                _OLD_PROGRAM,
                _OLD_TENSORS,
                _OLD_PLAIN,
                {name.lower(): name for name in names},
            )
        else:
            program, tensors, plain, keys = _PROGRAM, _TENSORS, _PLAIN, _records(archive)
            if len(roots := {name.partition("/")[0] for name in names}) > 1:
                yield Fault(path.name, f"{len(roots)} folders, of which torch reads one")
        for key, name in keys.items():
            if program.fullmatch(key):
                try:
                    yield from (
                        Fault(name, what) for what in program_faults(read_member(archive, name, JSON_LIMIT))
                    )
                except (ValueError, RecursionError) as error:
                    raise RefusedError(
                        "the exported program's JSON is damaged",
                        seen=f"{name}: {error}",
                        next="save it again",
                    ) from error
            elif tensors.fullmatch(key):
                yield from (Fault(name, f"the class {found}") for found in _tensor_globals(archive, name))
            elif not plain.fullmatch(key):
                yield Fault(name, "a record that is neither program nor tensors")


def _tensor_globals(archive: zipfile.ZipFile, name: str) -> Iterator[str]:
    """Name what a file of torch.save inside the archive imports beside tensors and containers."""
    if not (size := archive.getinfo(name).file_size):
        return
    try:
        with archive.open(name) as file, zipfile.ZipFile(file) as inner:
            check_archive(inner, name, size)
            pickles = [entry for entry in inner.namelist() if entry.lower().endswith(".pkl")]
            for entry in pickles:
                yield from (
                    found
                    for found in _globals(entry, read_member(inner, entry, PICKLE_LIMIT))
                    if not _tensor_global(found)
                )
            if len(pickles) != 1:
                yield f"of {len(pickles)} pickles"
    except ZIP_DAMAGE as error:
        raise RefusedError(
            f"the record {name} is damaged", seen=str(error), next="save the program again"
        ) from error


def _tensor_global(name: str) -> bool:
    module, _, last = name.rpartition(".")
    return name in BUILDERS or (
        module in ("torch", "torch.storage") and (last in dtypes.STORAGES or dtypes.known(last))
    )
