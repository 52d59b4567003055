"""TensorFlow checkpoints (``PREFIX.index`` and ``PREFIX.data-00000-of-0000N``) as plans, without TensorFlow.

Format facts: the index is a LevelDB table (tensorflow/core/lib/io/format.cc: a footer of 48 bytes with the
handles of two blocks and the magic 0xdb4775248b80fb57; blocks of prefix-compressed entries, each followed by
a byte for compression and a checksum) from names to ``BundleEntryProto`` (core/protobuf/tensor_bundle.proto:
1 dtype, 2 shape, 3 shard_id, 4 offset, 5 size, 7 slices); the entry under the empty name is
``BundleHeaderProto`` (1 num_shards, 2 endianness).  Variables of Keras and tf.train.Checkpoint end in
``/.ATTRIBUTES/VARIABLE_VALUE``.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator

from mnnprep.errors import RefusedError
from mnnprep.text import listed
from mnnprep.weights.content import Content, damaged
from mnnprep.weights.dtypes import byte_size
from mnnprep.weights.files import File
from mnnprep.weights.places import Place
from mnnprep.weights.plan import Tensor, stored

MAGIC = struct.pack("<Q", 0xDB4775248B80FB57)
FOOTER = 48
INDEX_LIMIT = 256 << 20
SUFFIX = "/.ATTRIBUTES/VARIABLE_VALUE"
# tensorflow/core/framework/types.proto
DTYPES = {
    1: "float32",
    2: "float64",
    3: "int32",
    4: "uint8",
    5: "int16",
    6: "int8",
    8: "complex64",
    9: "int64",
    10: "bool",
    14: "bfloat16",
    17: "uint16",
    18: "complex128",
    19: "float16",
    22: "uint32",
    23: "uint64",
    24: "float8_e5m2",
    25: "float8_e4m3fn",
}
Fields = dict[int, list[int | bytes]]


def is_index(file: File) -> bool:
    """Whether *file* ends as a table does."""
    return file.size >= FOOTER and file.read(file.size - 8, 8) == MAGIC


def read(index: Place) -> Content:
    """Every variable, under its name without TensorFlow's suffix.

    Raises:
        RefusedError: the file is damaged, or not one that mnnprep takes.
    """
    file = index.open()
    try:
        entries = dict(_table(index.read(INDEX_LIMIT)))
        header = _fields(entries.pop(b""))
        shards = _number(header, 1)
        big_endian = bool(_number(header, 2))
        described = {name.decode(): _fields(value) for name, value in entries.items()}
    except (ValueError, IndexError, KeyError, struct.error) as error:
        raise damaged(file.name, file.size, error) from error
    if big_endian:
        raise RefusedError(
            "this checkpoint was written on a big-endian machine",
            seen=file.name,
            next="save it again on this machine",
        )
    stem = index.name.removesuffix(".index")
    parts = [f"{stem}.data-{number:05}-of-{shards:05}" for number in range(shards)]
    missing = [part for part in parts if not index.beside(part).is_file()]
    if missing:
        raise RefusedError(
            f"{len(missing)} of {shards} shards are missing",
            seen=listed(missing),
            next=f"put them beside {index.name}",
        )
    tree: dict[str, Tensor] = {}
    left: list[tuple[str, str]] = []
    for name, fields in described.items():
        dtype = DTYPES.get(_number(fields, 1))
        if fields.get(7):
            raise RefusedError(
                "a variable of the checkpoint is partitioned",
                seen=name,
                next="save it without a partitioner, then consolidate that",
            )
        if dtype is None:
            left.append((name, "not numeric"))
            continue
        tree[name.removesuffix(SUFFIX)] = _variable(name, dtype, fields, index, parts, file)
    return Content(tree, "TensorFlow checkpoint", left_out=tuple(left))


def _variable(name: str, dtype: str, fields: Fields, index: Place, parts: list[str], file: File) -> Tensor:
    """The variable that an entry of the index (BundleEntryProto) describes.

    Raises:
        RefusedError: the file is damaged, or not one that mnnprep takes.
    """
    try:
        shape = tuple(
            _number(_fields(_bytes(dim)), 1) for dim in _fields(_bytes(fields.get(2, [b""])[0])).get(2, [])
        )
        shard, offset, size = (_number(fields, number) for number in (3, 4, 5))
        data = index.beside(parts[shard]).open()
    except (ValueError, IndexError) as error:
        raise damaged(file.name, file.size, error) from error
    tensor = stored(dtype, shape, data, offset)
    if (
        min(shape, default=0) < 0
        or size != byte_size(dtype, tensor.elements)
        or offset < 0
        or offset + size > data.size
    ):
        raise damaged(
            file.name,
            file.size,
            f"{name}, {dtype} {list(shape)}, is said to be {size} bytes at {offset} of {data.name}"
            f" ({data.size})",
        )
    return tensor


def _table(data: bytes) -> Iterator[tuple[bytes, bytes]]:
    """The entries of a LevelDB table."""
    footer = data[-FOOTER:]
    _, at = _handle(footer, 0)
    (begin, size), _ = _handle(footer, at)
    for _, handle in _block(data, begin, size):
        (start, length), _ = _handle(handle, 0)
        yield from _block(data, start, length)


def _handle(data: bytes, at: int) -> tuple[tuple[int, int], int]:
    offset, at = _varint(data, at)
    size, at = _varint(data, at)
    return (offset, size), at


def _block(data: bytes, begin: int, size: int) -> Iterator[tuple[bytes, bytes]]:
    if begin + size + 5 > len(data):
        raise ValueError(f"a block at {begin} reaches beyond the index")
    if data[begin + size] != 0:
        raise ValueError("the index is compressed, which TensorFlow does not write")
    block = data[begin : begin + size]
    restarts = struct.unpack("<I", block[-4:])[0]
    end = size - 4 * (restarts + 1)
    at = 0
    key = b""
    while at < end:
        shared, at = _varint(block, at)
        fresh, at = _varint(block, at)
        length, at = _varint(block, at)
        if shared > len(key) or at + fresh + length > end:
            raise ValueError("an entry of the index reaches beyond its block")
        key = key[:shared] + block[at : at + fresh]
        yield key, block[at + fresh : at + fresh + length]
        at += fresh + length


def _varint(data: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = data[at]
        value |= (byte & 0x7F) << shift
        at += 1
        shift += 7
        if byte < 0x80:
            return value, at
        if shift > 63:
            raise ValueError("a number of the index is too long")


def _fields(data: bytes) -> Fields:
    """The fields of a protobuf message, by number."""
    fields: Fields = {}
    at = 0
    while at < len(data):
        key, at = _varint(data, at)
        value: int | bytes
        if key & 7 == 0:
            value, at = _varint(data, at)
        elif key & 7 in (1, 5):
            width = 8 if key & 7 == 1 else 4
            value, at = data[at : at + width], at + width
        elif key & 7 == 2:
            length, at = _varint(data, at)
            if at + length > len(data):
                raise ValueError("a field reaches beyond its message")
            value, at = data[at : at + length], at + length
        else:
            raise ValueError(f"a field of wire type {key & 7}")
        fields.setdefault(key >> 3, []).append(value)
    return fields


def _number(fields: Fields, number: int) -> int:
    value = fields.get(number, [0])[-1]
    if not isinstance(value, int):
        raise ValueError(f"field {number} is not a number")
    return value - (1 << 64) if value >= 1 << 63 else value


def _bytes(value: int | bytes) -> bytes:
    if not isinstance(value, bytes):
        raise ValueError("a message is a number")
    return value
