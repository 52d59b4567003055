"""The header of a safetensors file, checked against the file's size; no tensor is read.

Format facts: github.com/huggingface/safetensors#format (8 bytes little-endian length, a JSON object of
at most 100 MB, then the tensors without holes in the order of their offsets).
"""

from __future__ import annotations

from pathlib import Path

import msgspec

from mnnprep.errors import RefusedError
from mnnprep.formats.tensor_info import TensorInfo, byte_count, element_count

HEADER_LIMIT = 100_000_000

DTYPES = {
    "F64": "float64", "F32": "float32", "F16": "float16", "BF16": "bfloat16", "I64": "int64", "I32": "int32", "I16": "int16", "I8": "int8",
    "U64": "uint64", "U32": "uint32", "U16": "uint16", "U8": "uint8", "BOOL": "bool", "C64": "complex64",
    "F8_E4M3": "float8_e4m3fn", "F8_E5M2": "float8_e5m2", "F8_E4M3FNUZ": "float8_e4m3fnuz", "F8_E5M2FNUZ": "float8_e5m2fnuz",
    "F8_E8M0": "float8_e8m0fnu", "F4": "float4_e2m1fn", "F6_E2M3": "float6_e2m3fn", "F6_E3M2": "float6_e3m2fn",
}  # fmt: skip


class SafetensorsHeader(msgspec.Struct, frozen=True):
    """The tensors, in the order of their data, and the ``__metadata__``."""

    tensors: tuple[TensorInfo, ...]
    metadata: dict[str, str]

    @property
    def elements(self) -> int:
        return sum(element_count(_sizes(tensor)) for tensor in self.tensors)


class _Entry(msgspec.Struct, frozen=True):
    dtype: str
    shape: list[int]
    data_offsets: tuple[int, int]


def looks_like_safetensors(head: bytes) -> bool:
    """Whether a file that begins so has a length and a JSON object where safetensors has them."""
    return len(head) > 8 and head[8:9] == b"{" and 2 <= int.from_bytes(head[:8], "little") <= HEADER_LIMIT


def read_header(path: Path) -> SafetensorsHeader:
    """Read and check the header.

    Raises:
        RefusedError: it is cut off, is not JSON, or says of the data what the file contradicts.
    """
    size = path.stat().st_size
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        if size < 8 or not 2 <= length <= min(HEADER_LIMIT, size - 8):
            raise _refused(path, f"the header is said to take {length} bytes, and the file has {size}")
        header = file.read(length)
    try:
        document = msgspec.json.decode(header, type=dict[str, msgspec.Raw])
        metadata = msgspec.json.decode(document.pop("__metadata__", msgspec.Raw(b"{}")), type=dict[str, str])
        entries = {name: msgspec.json.decode(raw, type=_Entry) for name, raw in document.items()}
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise _refused(path, f"the header is not what safetensors writes: {error}") from error
    tensors = []
    at = 0
    for name, entry in sorted(entries.items(), key=lambda item: item[1].data_offsets):
        begin, end = entry.data_offsets
        dtype = DTYPES.get(entry.dtype, "")
        expected = byte_count(dtype, element_count(tuple(entry.shape)))
        if not dtype or any(extent < 0 for extent in entry.shape):
            raise _refused(path, f"tensor {name} is {entry.dtype} {entry.shape}, which the format does not have")
        if begin != at or end - begin != expected:
            raise _refused(path, f"tensor {name}, {entry.dtype} {entry.shape}, takes {expected} bytes from {at}, its offsets say {begin} to {end}")
        tensors.append(TensorInfo(name, dtype, tuple(entry.shape)))
        at = end
    if 8 + length + at != size:
        raise _refused(path, f"the header describes {8 + length + at} bytes, and the file has {size}")
    return SafetensorsHeader(tuple(tensors), metadata)


def _sizes(tensor: TensorInfo) -> tuple[int, ...]:
    return tuple(extent for extent in tensor.shape or () if isinstance(extent, int))


def _refused(path: Path, reason: str) -> RefusedError:
    return RefusedError(
        "the safetensors header does not fit the file: it is truncated or damaged",
        seen=f"{path.name}: {reason}",
        next="download or save it again, and compare its size or checksum with the original's",
    )
