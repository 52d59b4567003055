"""Tensors as a scan of an ONNX file counts them: from their fields, without reading their numbers.

Format facts: onnx/onnx.proto (TensorProto), docs/ExternalData.md (location, offset, length).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from mnnprep.formats.onnx.fields import Entry, Tensor
from mnnprep.formats.onnx.summary import Tally, Tensors
from mnnprep.formats.tensor_info import MAX_ELEMENTS, byte_count, element_count
from mnnprep.wire.buffer import Buffer
from mnnprep.wire.protobuf import LENGTH, VARINT, WireError, fields, packed, signed, text

# TensorProto.DataType
DTYPES = {
    1: "float32",
    2: "uint8",
    3: "int8",
    4: "uint16",
    5: "int16",
    6: "int32",
    7: "int64",
    8: "string",
    9: "bool",
    10: "float16",
    11: "float64",
    12: "uint32",
    13: "uint64",
    14: "complex64",
    15: "complex128",
    16: "bfloat16",
    17: "float8_e4m3fn",
    18: "float8_e4m3fnuz",
    19: "float8_e5m2",
    20: "float8_e5m2fnuz",
    21: "uint4",
    22: "int4",
    23: "float4_e2m1fn",
    24: "float8_e8m0fnu",
    25: "uint2",
    26: "int2",
    27: "float6_e2m3fn",
    28: "float6_e3m2fn",
}


class Tallies:
    """Adds tensors up."""

    def __init__(self) -> None:
        self._by_dtype: dict[str, list[int]] = {}

    def add(self, dtype: str, elements: int, size: int) -> None:
        """Count one tensor of *dtype* with its elements and bytes."""
        sums = self._by_dtype.setdefault(dtype, [0, 0, 0])
        for index, value in enumerate((1, elements, size)):
            sums[index] += value

    def result(self) -> Tensors:
        """Return the sums, in total and by dtype."""
        total = [sum(column) for column in zip(*self._by_dtype.values(), strict=True)] or [0, 0, 0]
        return Tensors(Tally(*total), {dtype: Tally(*sums) for dtype, sums in sorted(self._by_dtype.items())})


@dataclass
class StoredTensor:
    """A TensorProto: ``stored`` has the extent of each field that holds numbers of it."""

    start: int
    name: str = ""
    dims: list[int] = field(default_factory=list)
    code: int = 0
    stored: dict[int, tuple[int, int]] = field(default_factory=dict)
    external: dict[str, str] = field(default_factory=dict)
    is_external: bool = False


def read_tensor(data: Buffer, start: int, end: int) -> StoredTensor:
    """The TensorProto in ``data[start:end]``.

    Raises:
        WireError: the bytes are not the wire format.
    """
    tensor = StoredTensor(start)
    for found in fields(data, start, end):
        number, kind, first, last = found
        match number, kind:
            case Tensor.DIMS, _:
                tensor.dims += [signed(value) for value in packed(data, found)]
            case Tensor.DATA_TYPE, 0:
                tensor.code = first
            case Tensor.NAME, 2:
                tensor.name = text(data, first, last)
            case Tensor.EXTERNAL_DATA, 2:
                tensor.external.update([read_entry(data, first, last)])
            case Tensor.DATA_LOCATION, 0:
                tensor.is_external = first == Tensor.EXTERNAL
            case _ if number in Tensor.DATA:
                tensor.stored.setdefault(number, (last, last + 1) if kind == VARINT else (first, last))
    return tensor


def read_entry(data: Buffer, start: int, end: int) -> tuple[str, str]:
    """The StringStringEntryProto in ``data[start:end]``: key and value."""
    found = {Entry.KEY: "", Entry.VALUE: ""}
    for number, kind, first, last in fields(data, start, end):
        if number in found and kind == LENGTH:
            found[number] = text(data, first, last)
    return found[Entry.KEY], found[Entry.VALUE]


class TensorLedger:
    """The notes of a scan on tensors, beside their sums.

    ``external`` has, by location, how many tensors lie there and how many bytes they need; ``int32_data`` the
    tensors of another dtype whose numbers are kept in that field.
    """

    def __init__(self) -> None:
        self.external: dict[str, tuple[int, int]] = {}
        self.int32_data: list[str] = []
        self.problems: list[str] = []

    def note(self, data: Buffer, tensor: StoredTensor, tallies: Tallies, place: str) -> bool | None:
        """Count *tensor*, which *place* names if it has no name; gives its value if that is a single boolean.

        Raises:
            WireError: a shape that no tensor has.
        """
        elements = element_count(tuple(tensor.dims))
        if any(size < 0 for size in tensor.dims) or elements > MAX_ELEMENTS:
            raise WireError(tensor.start, f"a tensor with the shape {tensor.dims}")
        label = tensor.name or place
        dtype = DTYPES.get(tensor.code, f"type {tensor.code}")
        if tensor.code not in DTYPES:
            self.problems.append(
                f"tensor {label} has the data type {tensor.code}, which ONNX does not define"
            )
        size = self._size(tensor, dtype, elements, label)
        if Tensor.INT32_DATA in tensor.stored and dtype != "int32":
            self.int32_data.append(label)
        tallies.add(dtype, elements, size)
        if dtype != "bool" or elements != 1 or tensor.is_external:
            return None
        first, last = tensor.stored.get(Tensor.RAW_DATA) or tensor.stored.get(Tensor.INT32_DATA) or (0, 0)
        return bool(data[first]) if last > first else None

    def _size(self, tensor: StoredTensor, dtype: str, elements: int, label: str) -> int:
        """The bytes that the tensor takes; notes where that is not what its shape needs."""
        expected = byte_count(dtype, elements)
        if tensor.is_external:
            return self._external_size(tensor.external, expected or 0, label)
        if Tensor.RAW_DATA in tensor.stored:
            first, last = tensor.stored[Tensor.RAW_DATA]
            if expected is not None and last - first != expected:
                told = (
                    f"tensor {label}, {dtype} {tensor.dims}, takes {expected} bytes and holds {last - first}"
                )
                self.problems.append(told)
            return last - first
        if not tensor.stored and elements:
            self.problems.append(f"tensor {label}, {dtype} {tensor.dims}, has no data")
        return expected or 0

    def _external_size(self, entries: Mapping[str, str], expected: int, label: str) -> int:
        """Note one tensor's place in an external file; gives its size in bytes."""
        location = entries.get("location", "")
        try:
            offset, length = int(entries.get("offset") or 0), int(entries.get("length") or expected)
        except ValueError:
            offset = length = -1
        if offset < 0 or length < 0 or not location:
            self.problems.append(f"tensor {label} has the unusable external data entry {dict(entries)}")
            return expected
        if expected and length != expected:
            self.problems.append(
                f"tensor {label} takes {expected} bytes and its external data entry gives {length}"
            )
        tensors, needed = self.external.get(location, (0, 0))
        self.external[location] = tensors + 1, max(needed, offset + length)
        return length
