"""GraphDefs and SavedModels written by hand: messages of tensorflow/core/framework and
tensorflow/core/protobuf.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from evaluation.hostile.case import Canary, field

FLOAT, INT32, STRING, INT64, RESOURCE = 1, 3, 7, 9, 20
Node = bytes


def attribute(value: Any) -> bytes:
    """An AttrValue: an int is a dtype, a tuple a shape, a list one of dtypes or shapes, a dict ready-made
    fields.
    """
    if isinstance(value, bool):
        return field(5, value)
    if isinstance(value, int):
        return field(6, value)
    if isinstance(value, str | bytes):
        return field(2, value)
    if isinstance(value, tuple):
        return field(7, shape(value))
    if isinstance(value, dict):
        return b"".join(field(k, v) for k, v in value.items())
    return field(1, [field(7, shape(v)) if isinstance(v, tuple) else field(6, v) for v in value])


def shape(sizes: Iterable[int]) -> bytes:
    return b"".join(field(2, [field(1, n)]) for n in sizes)


def node(name: str, op: str, inputs: Iterable[str] = (), **attributes: Any) -> Node:
    entries = [field(5, [field(1, k), field(2, attribute(v))]) for k, v in attributes.items()]
    return field(1, name) + field(2, op) + b"".join(field(3, i) for i in inputs) + b"".join(entries)


def text(name: str, *values: str) -> Node:
    """A constant of strings; of one, a scalar."""
    sizes = () if len(values) == 1 else (len(values),)
    tensor = field(1, STRING) + field(2, shape(sizes)) + b"".join(field(8, v) for v in values)
    return node(name, "Const", dtype=STRING, value={8: tensor})


def vector(name: str, *values: str) -> Node:
    return node(
        name,
        "Const",
        dtype=STRING,
        value={8: field(1, STRING) + field(2, shape((len(values),))) + b"".join(field(8, v) for v in values)},
    )


def number(name: str, value: int, dtype: int = INT32) -> Node:
    packed = struct.pack("<i" if dtype == INT32 else "<q", value)
    return node(name, "Const", dtype=dtype, value={8: field(1, dtype) + field(2, b"") + field(4, packed)})


def numbers(name: str, *values: int) -> Node:
    packed = struct.pack(f"<{len(values)}i", *values)
    return node(
        name,
        "Const",
        dtype=INT32,
        value={8: field(1, INT32) + field(2, shape((len(values),))) + field(4, packed)},
    )


PLACEHOLDER = node("x", "Placeholder", dtype=FLOAT, shape=(1, 16))


def after(*controls: str) -> list[Node]:
    """y = x + 0, behind *controls*."""
    return [node("y", "Identity", ["x", *(f"^{c}" for c in controls)], T=FLOAT)]


def added(value: str) -> list[Node]:
    """y = *value* + 0 x: it depends on the input, and is the value."""
    zero = node(
        "zero",
        "Const",
        dtype=FLOAT,
        value={8: field(1, FLOAT) + field(2, b"") + field(5, struct.pack("<f", 0))},
    )
    return [zero, node("none", "Mul", ["x", "zero"], T=FLOAT), node("y", "AddV2", ["none", value], T=FLOAT)]


def decoded(value: str) -> list[Node]:
    """y = the bytes of the string *value*, as float32."""
    return [node("decoded", "DecodeRaw", [value], out_type=FLOAT, little_endian=True), *added("decoded")]


def graph_bytes(nodes: Iterable[Node], library: bytes = b"") -> bytes:
    return (
        b"".join(field(1, n) for n in nodes)
        + (field(2, library) if library else b"")
        + field(4, [field(1, 1882)])
    )


def graph(canary: Canary, nodes: Iterable[Node], library: bytes = b"") -> Path:
    path = canary.model / "model.pb"
    path.write_bytes(graph_bytes(nodes, library))
    return path


def saved_model(
    canary: Canary, nodes: Iterable[Node], library: bytes = b"", collections: bytes = b"", assets: bytes = b""
) -> Path:
    """A SavedModel as TensorFlow 1 wrote it, without variables."""

    def info(name: str) -> bytes:
        return field(1, f"{name}:0") + field(2, FLOAT) + field(3, shape((1, 16)))

    signature = (
        field(1, [field(1, "x"), field(2, info("x"))])
        + field(2, [field(1, "y"), field(2, info("y"))])
        + field(3, "tensorflow/serving/predict")
    )
    meta = (
        field(1, [field(4, "serve"), field(5, "2.15.0")])
        + field(2, graph_bytes(nodes, library))
        + collections
    )
    meta += field(5, [field(1, "serving_default"), field(2, signature)]) + assets
    (canary.model / "saved").mkdir()
    (canary.model / "saved" / "saved_model.pb").write_bytes(field(1, 1) + field(2, meta))
    return canary.model / "saved"
