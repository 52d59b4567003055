"""The header of the file that is written.

Format facts: github.com/huggingface/safetensors; the order (larger element types first, then by name), the
``__metadata__`` in front and the padding to 8 bytes are those of its own ``serialize_file``, so that the
bytes are the same.  ``format: pt`` is what transformers asks for; the names of tied tensors stand in the
metadata as ``safetensors.torch.save_model`` writes them.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from mnnprep.errors import RefusedError
from mnnprep.weights.dtypes import CODES, byte_size
from mnnprep.weights.plan import Shape

# safetensors' order of its own Dtype, reversed
ORDER = (
    "uint64",
    "int64",
    "float64",
    "complex64",
    "float32",
    "uint32",
    "int32",
    "bfloat16",
    "float16",
    "uint16",
    "int16",
    "float8_e5m2fnuz",
    "float8_e4m3fnuz",
    "float8_e8m0fnu",
    "float8_e4m3fn",
    "float8_e5m2",
    "int8",
    "uint8",
    "bool",
)


class Slot(NamedTuple):
    """A tensor of the file: ``begin`` to ``end`` are bytes behind the header."""

    name: str
    dtype: str
    shape: Shape
    begin: int
    end: int


def ordered(tensors: Mapping[str, tuple[str, Shape]]) -> list[str]:
    """The names in the order of the file.

    Raises:
        RefusedError: a dtype that safetensors does not have.
    """
    for name, (dtype, _) in tensors.items():
        if dtype not in CODES:
            raise RefusedError(
                "safetensors has no such element type",
                seen=f"{name}: {dtype}",
                next=f"leave it out with --drop '^{name}$'",
            )
    return sorted(tensors, key=lambda name: (ORDER.index(tensors[name][0]), name))


def layout(tensors: Sequence[tuple[str, str, Shape]], aliases: Mapping[str, str]) -> tuple[bytes, list[Slot]]:
    """The header's bytes, and where each tensor goes; *tensors* are (name, dtype, shape) in order."""
    slots = []
    at = 0
    document: dict[str, object] = {"__metadata__": {"format": "pt", **dict(sorted(aliases.items()))}}
    for name, dtype, shape in tensors:
        count = 1
        for extent in shape:
            count *= extent
        slots.append(Slot(name, dtype, shape, at, at + byte_size(dtype, count)))
        document[name] = {"dtype": CODES[dtype], "shape": list(shape), "data_offsets": [at, slots[-1].end]}
        at = slots[-1].end
    try:
        text = json.dumps(document, separators=(",", ":"), ensure_ascii=False).encode()
    except UnicodeEncodeError as error:  # halves of surrogate pairs, which UTF-8 does not have
        raise RefusedError(
            "a tensor's name can't be written as UTF-8, which safetensors needs",
            seen=ascii(error.object[max(0, error.start - 20) : error.end + 20]),
            next="leave it out with --drop, or give it another name with --rename",
        ) from error
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text, slots
