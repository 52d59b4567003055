"""safetensors files as plans; only the header is read.

Format facts: github.com/huggingface/safetensors#format: 8 bytes little-endian length, a JSON object of at
most 100 MB, then the tensors, without holes, at their ``data_offsets``.  ``__metadata__`` maps strings to
strings; what ``safetensors.torch.save_model`` left out as tied stands there by name.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import msgspec

from mnnprep.errors import RefusedError
from mnnprep.weights.content import Content
from mnnprep.weights.dtypes import BITS, MOST_DIMENSIONS, PACKED, SAFETENSORS, known
from mnnprep.weights.files import File
from mnnprep.weights.plan import stored

HEADER_LIMIT = 100_000_000
MAX_EXTENT = 1 << 63  # sizes are 64-bit numbers


class _Entry(msgspec.Struct, frozen=True):
    dtype: str
    shape: tuple[int, ...]
    data_offsets: tuple[int, int]


class Entry(NamedTuple):
    """A tensor as the header has it: ``begin`` is its first byte in the file.

    ``dtype`` may be one that is not read (4 and 6 bits).
    """

    dtype: str
    shape: tuple[int, ...]
    begin: int


class Header(NamedTuple):
    """The tensors in the order of their bytes, and the ``__metadata__``."""

    tensors: dict[str, Entry]
    metadata: dict[str, str]


def looks_like_it(head: bytes) -> bool:
    """Whether a file that begins so has a length and a JSON object where safetensors has them."""
    return len(head) > 8 and head[8:9] == b"{" and 2 <= int.from_bytes(head[:8], "little") <= HEADER_LIMIT


def read_header(file: File) -> Header:
    """The header, checked against the file's size.

    Raises:
        RefusedError: the file contradicts the header.
    """
    length = int.from_bytes(file.read(0, 8), "little") if file.size >= 8 else 0
    if not 2 <= length <= min(HEADER_LIMIT, file.size - 8):
        raise _damaged(file, f"it is said to take {length} bytes of the {file.size}")
    try:
        document = msgspec.json.decode(file.read(8, length), type=dict[str, msgspec.Raw])
        metadata = msgspec.json.decode(document.pop("__metadata__", msgspec.Raw(b"{}")), type=dict[str, str])
        entries = {name: msgspec.json.decode(raw, type=_Entry) for name, raw in document.items()}
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise _damaged(file, f"it is not what safetensors writes: {error}") from error
    tensors: dict[str, Entry] = {}
    at = 0
    for name, entry in sorted(entries.items(), key=lambda item: item[1].data_offsets):
        begin, end = entry.data_offsets
        if len(entry.shape) > MOST_DIMENSIONS:
            raise _damaged(file, f"tensor {name} has {len(entry.shape)} dimensions")
        dtype = SAFETENSORS.get(entry.dtype) or PACKED.get(entry.dtype)
        if dtype is None or any(not 0 <= extent < MAX_EXTENT for extent in entry.shape):
            raise _damaged(file, f"tensor {name} is {entry.dtype} {list(entry.shape)}, which is not known")
        size = -(-BITS[dtype] * math.prod(entry.shape) // 8)
        if begin != at or end - begin != size:
            raise _damaged(
                file,
                f"tensor {name}, {entry.dtype} {list(entry.shape)}, takes {size} bytes from {at}, its offsets"
                f" say {begin} to {end}",
            )
        tensors[name] = Entry(dtype, entry.shape, 8 + length + begin)
        at = end
    if 8 + length + at != file.size:
        raise _damaged(file, f"it describes {8 + length + at} bytes of the {file.size}")
    return Header(tensors, metadata)


def _damaged(file: File, reason: str) -> RefusedError:
    return RefusedError(
        "the safetensors header does not fit the file: it is truncated or damaged",
        seen=f"{file.name}: {reason}"[:400],
        next="download or save it again, and compare its size or checksum with the original's",
    )


def read(file: File) -> Content:
    """The tensors in the order of their bytes.

    Raises:
        RefusedError: as in :func:`read_header`, or elements take less than a byte.
    """
    header = read_header(file)
    for name, entry in header.tensors.items():
        if not known(entry.dtype):
            raise RefusedError(
                "elements of less than a byte are not read",
                seen=f"{file.name}: {name} is {entry.dtype}",
                next="give the weights as they were trained, before any quantization",
            )
    tensors = {
        name: stored(entry.dtype, entry.shape, file, entry.begin) for name, entry in header.tensors.items()
    }
    aliases = {
        name: kept for name, kept in header.metadata.items() if kept in tensors and name not in tensors
    }
    return Content(tensors, "safetensors", aliases=aliases)
