"""safetensors files as plans; only the header is read.

Format facts: github.com/huggingface/safetensors#format: 8 bytes little-endian length, a JSON object of at
most 100 MB, then the tensors, without holes, at their ``data_offsets``.  ``__metadata__`` maps strings to strings; what
``safetensors.torch.save_model`` left out as tied stands there by name.
"""

from __future__ import annotations

import msgspec

from mnnprep.weights.content import Content, damaged
from mnnprep.weights.dtypes import SAFETENSORS, byte_size
from mnnprep.weights.files import File
from mnnprep.weights.plan import Tensor, stored

HEADER_LIMIT = 100_000_000
MAX_EXTENT = 1 << 63  # sizes are 64-bit numbers


class _Entry(msgspec.Struct, frozen=True):
    dtype: str
    shape: tuple[int, ...]
    data_offsets: tuple[int, int]


def looks_like_it(head: bytes) -> bool:
    """Whether a file that begins so has a length and a JSON object where safetensors has them."""
    return len(head) > 8 and head[8:9] == b"{" and 0 < int.from_bytes(head[:8], "little") <= HEADER_LIMIT


def read(file: File) -> Content:
    """The tensors in the order of their bytes. Raises RefusedError for a header that the file contradicts."""
    length = int.from_bytes(file.read(0, 8), "little") if file.size >= 8 else 0
    if not 2 <= length <= min(HEADER_LIMIT, file.size - 8):
        raise damaged(file.name, file.size, f"its header is said to take {length} bytes")
    try:
        document = msgspec.json.decode(file.read(8, length), type=dict[str, msgspec.Raw])
        metadata = msgspec.json.decode(document.pop("__metadata__", msgspec.Raw(b"{}")), type=dict[str, str])
        entries = {name: msgspec.json.decode(raw, type=_Entry) for name, raw in document.items()}
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise damaged(file.name, file.size, error) from error
    tensors: dict[str, Tensor] = {}
    at = 0
    for name, entry in sorted(entries.items(), key=lambda item: item[1].data_offsets):
        begin, end = entry.data_offsets
        dtype = SAFETENSORS.get(entry.dtype)
        if dtype is None or any(not 0 <= extent < MAX_EXTENT for extent in entry.shape):
            raise damaged(file.name, file.size, f"tensor {name} is {entry.dtype} {list(entry.shape)}, which is not known")
        tensor = stored(dtype, entry.shape, file, 8 + length + begin)
        if begin != at or end - begin != byte_size(dtype, tensor.elements):
            raise damaged(
                file.name,
                file.size,
                f"tensor {name}, {entry.dtype} {list(entry.shape)}, takes {tensor.nbytes} bytes from {at}, its offsets say {begin} to {end}",
            )
        tensors[name] = tensor
        at = end
    if 8 + length + at != file.size:
        raise damaged(file.name, file.size, f"its header describes {8 + length + at} bytes")
    aliases = {name: kept for name, kept in metadata.items() if kept in tensors and name not in tensors}
    return Content(tensors, "safetensors", aliases=aliases)
