"""ZIP archives from strangers (``.pt``, ``.npz``, ``.keras``).

They are judged by their directory before a byte is inflated.

The policy, and why:

- **What may unfold** is an absolute budget, not a ratio: :func:`unfolded_limit` allows 512 MiB from a file of
  any size, or 16 times the file if that is more. Deflate reaches 1032:1 (zlib's technical notes), and an
  honest array of zeros does reach
  it: 64 MB from 64 KB is fine, 5 GB from 5 MB is not.
- **A member's declared size is believed only if it can be true**: a stored one has as many bytes as it takes
  in the file, a deflated one at most 1032 for each. No other method is taken; bzip2 and LZMA know no such
  bound.
- **Members share no bytes**: overlapping records multiply one deflated kernel by their number (the "zip bomb"
  of D. Fifield, 2019).
- **One file has one reading**: no two members of one name, no archive inside another's leading bytes, and a
  local header that says what the directory says (name, method, sizes); readers differ in which of the two
  they follow.
- The directory itself takes at most 32 MiB and 200,000 members (the largest checkpoints hold about 150,000
  tensors).

Format facts: APPNOTE.TXT 6.3.10 (PKWARE), sections 4.3.7 (local header), 4.3.12 (directory), 4.4.4 (flags).
"""

from __future__ import annotations

import io
import struct
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from mnnprep.errors import RefusedError

DIRECTORY_LIMIT = 32 << 20
MEMBER_LIMIT = 200_000
UNFOLDED_FLOOR = 512 << 20
UNFOLDED_RATIO = 16
DEFLATE_RATIO = 1032
# What zipfile raises for a damaged archive (UnicodeDecodeError is a ValueError; RuntimeError is an encrypted
# record).
ZIP_DAMAGE = (
    zipfile.BadZipFile,
    OSError,
    EOFError,
    ValueError,
    KeyError,
    NotImplementedError,
    RuntimeError,
    zlib.error,
    struct.error,
)

_LOCAL = struct.Struct("<4s2xHH8xIIHH")  # signature, flags, method, compressed, size, name, extra: 30 bytes
_ENCRYPTED, _STREAMED, _UTF8 = 0x1, 0x8, 0x800
_METHODS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)
_IN_ZIP64 = 0xFFFFFFFF
_AGAIN = "download or save it again, and compare its size or checksum with the original's"


def unfolded_limit(size: int) -> int:
    """The bytes that all members of an archive of *size* bytes may take when inflated."""
    return max(UNFOLDED_FLOOR, UNFOLDED_RATIO * size)


@contextmanager
def open_archive(path: Path) -> Iterator[zipfile.ZipFile]:
    """The ZIP archive at *path*, checked by the module's policy, open for the ``with`` block.

    Nothing is inflated for it.

    Raises:
        RefusedError: the archive is damaged, or one that the policy doesn't take.
    """
    try:
        file = _Opening(path.open("rb", buffering=0))
    except OSError as error:
        raise _damaged(path, error) from error
    with file:
        try:
            archive = zipfile.ZipFile(file)
        except ZIP_DAMAGE as error:
            raise _damaged(path, error) from error
        file.opening = False
        with archive:
            check_archive(archive, path.name, path.stat().st_size)
            yield archive


def read_member(archive: zipfile.ZipFile, name: str, limit: int) -> bytes:
    """The member *name*, inflated to the size that the directory declares and never beyond.

    Raises:
        RefusedError: the member is over *limit* bytes, missing or damaged.
    """
    try:
        entry = archive.getinfo(name)
        if entry.file_size > limit:
            raise RefusedError(
                f"the record {name} is too large to read",
                seen=f"{entry.file_size} bytes, and {limit} are read",
                next=_AGAIN,
            )
        with archive.open(entry) as member:
            data = member.read(
                entry.file_size
            )  # read() would inflate up to 2 GiB at once, whatever is declared
            if len(data) != entry.file_size:
                raise zipfile.BadZipFile(f"it ends after {len(data)} bytes of {entry.file_size}")
            return data
    except ZIP_DAMAGE as error:
        raise RefusedError(
            f"the record {name} of the ZIP archive is damaged", seen=str(error), next=_AGAIN
        ) from error


def check_archive(archive: zipfile.ZipFile, name: str, size: int) -> None:
    """Require that the open *archive* is as the module's policy wants it.

    It is a file *name* of *size* bytes.

    Raises:
        RefusedError: it is not.
    """
    check_directory(archive, name, size)
    for entry, end in _with_ends(archive):
        if fault := _local_fault(archive, entry, end):
            raise _refused(name, "is not as its directory says", f"the member {entry.filename} {fault}")


def _with_ends(archive: zipfile.ZipFile) -> Iterator[tuple[zipfile.ZipInfo, int]]:
    """The members in their order in the file, each with the place before which it has to end."""
    entries = sorted(archive.infolist(), key=lambda e: e.header_offset)
    return zip(entries, [*(e.header_offset for e in entries[1:]), archive.start_dir], strict=False)


def check_directory(archive: zipfile.ZipFile, name: str, size: int) -> None:
    """Do as :func:`check_archive`, but by the directory alone.

    It is for archives of which every read of a member's own header would be a request of its own.
    """
    entries = sorted(archive.infolist(), key=lambda e: e.header_offset)
    if len(entries) > MEMBER_LIMIT:
        raise _refused(name, "has too many members", f"{len(entries)}, and {MEMBER_LIMIT} are taken")
    if entries and entries[0].header_offset:
        raise _damaged(Path(name), zipfile.BadZipFile("the only directory is that of an archive inside it"))
    names: set[str] = set()
    total = 0
    for entry, end in _with_ends(archive):
        fault = _entry_fault(entry)
        if not fault and entry.filename in names:
            fault = "has the name of another one"
        if not fault and entry.header_offset + _LOCAL.size + entry.compress_size > end:
            fault = "overlaps the next one"
        if fault:
            raise _refused(name, "is not as its directory says", f"the member {entry.filename} {fault}")
        names.add(entry.filename)
        total += entry.file_size
    if total > unfolded_limit(size):
        raise RefusedError(
            "the ZIP archive would unfold to far more than its size",
            seen=f"{name}: {size} bytes would become {total}, and {unfolded_limit(size)} are allowed",
            next="save it without compression",
        )


class _Opening(io.BufferedReader):
    """A file whose directory zipfile can't read in one piece when it is over the limit."""

    opening = True

    def read(self, size: int | None = -1, /) -> bytes:
        if self.opening and size is not None and size > DIRECTORY_LIMIT:
            raise zipfile.BadZipFile(f"its directory takes {size} bytes, and {DIRECTORY_LIMIT} are read")
        return super().read(size)


def _entry_fault(entry: zipfile.ZipInfo) -> str:
    """Say what the directory alone has against a member, empty if nothing."""
    if entry.flag_bits & _ENCRYPTED:
        return "is encrypted"
    if entry.compress_type not in _METHODS:
        return f"is compressed by method {entry.compress_type}; stored and deflated ones are taken"
    if entry.compress_type == zipfile.ZIP_STORED and entry.file_size != entry.compress_size:
        return f"declares {entry.file_size} bytes, and {entry.compress_size} are stored"
    if entry.file_size > DEFLATE_RATIO * entry.compress_size:
        return f"declares {entry.file_size} bytes, more than {entry.compress_size} deflated ones can hold"
    return ""


def _local_fault(archive: zipfile.ZipFile, entry: zipfile.ZipInfo, end: int) -> str:
    """Say how a member's own header contradicts the directory, empty if not; it must end by *end*."""
    assert archive.fp is not None
    archive.fp.seek(entry.header_offset)
    raw = archive.fp.read(_LOCAL.size)
    if len(raw) < _LOCAL.size or raw[:4] != b"PK\x03\x04":
        return "has no header of its own"
    _, flags, method, compressed, size, name_length, extra_length = _LOCAL.unpack(raw)
    own = archive.fp.read(name_length).decode("utf-8" if flags & _UTF8 else "cp437", "replace")
    if own != entry.orig_filename:
        return "has another name in its own header"
    if method != entry.compress_type or (flags ^ entry.flag_bits) & _ENCRYPTED:
        return "is stored in another way by its own header"
    stated = [(compressed, entry.compress_size), (size, entry.file_size)]
    if not flags & _STREAMED and any(here not in (there, _IN_ZIP64) for here, there in stated):
        return "has other sizes in its own header"
    if entry.header_offset + _LOCAL.size + name_length + extra_length + entry.compress_size > end:
        return "overlaps the next one"
    return ""


def _refused(name: str, what: str, seen: str) -> RefusedError:
    return RefusedError(f"the ZIP archive {what}", seen=f"{name}: {seen}", next=_AGAIN)


def _damaged(path: Path, error: Exception) -> RefusedError:
    size = f", {path.stat().st_size} bytes" if path.is_file() else ""
    return RefusedError(
        "the ZIP archive is truncated or damaged: its directory, which stands at the end, can't be read",
        seen=f"{path.name}{size}: {error}",
        next=_AGAIN,
    )
