"""No pickle of a few bytes keeps the reader busy, or makes it hold far more than the file."""

from __future__ import annotations

import io
import pickle
import struct
from collections.abc import Callable
from typing import Any

import pytest

from mnnprep.formats import pickles
from mnnprep.formats.pickles import stored_tensors
from mnnprep.weights import growth
from mnnprep.weights import safe_unpickler as inert
from mnnprep.weights.entries import entries_of
from mnnprep.weights.pickle_scan import PickleError, scan_pickle

START = b"\x80\x02"
DOUBLED = b")" + b"q\x00h\x00\x86" * 60  # a tuple of the last one twice, sixty times


def _long(value: int) -> bytes:
    data = value.to_bytes(16, "little", signed=True)
    return b"\x8a" + bytes([len(data)]) + data


def _text(value: str) -> bytes:
    return b"X" + struct.pack("<I", len(value)) + value.encode()


def _tensor(shape: str, strides: str, count: int = 16) -> bytes:
    """A tensor of 4-byte elements, by text opcodes."""
    storage = (
        b"("
        + _text("storage")
        + b"ctorch\nFloatStorage\n"
        + _text("0")
        + _text("cpu")
        + f"I{count}\n".encode()
        + b"tQ"
    )

    def ints(text: str) -> bytes:
        return b"(" + b"".join(f"I{n}\n".encode() for n in text.split()) + b"t"

    return (
        b"ctorch._utils\n_rebuild_tensor_v2\n(" + storage + b"I0\n" + ints(shape) + ints(strides) + b"\x89}tR"
    )


@pytest.mark.parametrize(
    ("body", "said"),
    [
        (DOUBLED + b"q\x00}h\x00Ns", "unfold"),  # a key
        (DOUBLED + b"q\x00(h\x00Nd", "unfold"),
        (DOUBLED + b"q\x00}(h\x00Nu", "unfold"),
        (b"\x80\x04" + DOUBLED + b"q\x00\x8f(h\x00\x90", "unfold"),  # in a set
        (b"\x80\x04(" + DOUBLED + b"\x91", "unfold"),
        (DOUBLED + b"Q", "unfold"),  # shown in a message
        (b"ccollections\nOrderedDict\n" + DOUBLED + b"R", "unfold"),
        (b"ccollections\nOrderedDict\n" + DOUBLED + b"\x81", "unfold"),
        (
            b"}(" + b"".join(_long((2**61 - 1) * (i + 2**60)) + b"N" for i in range(2000)) + b"u",
            "beyond 64 bits",
        ),
        (b"(" + b"".join(f"ca\n{i}\n".encode() for i in range(10_001)) + b"l", "classes and functions"),
        (b"RR", "too few"),
    ],
)
def test_a_stream_that_unfolds_is_refused_before_it_is_unpickled(
    monkeypatch: pytest.MonkeyPatch, body: bytes, said: str
) -> None:
    def never(*_: Any, **__: Any) -> None:
        raise AssertionError("it was unpickled")

    monkeypatch.setattr(inert, "_Unpickler", never)
    with pytest.raises(PickleError, match=said):
        inert.load(io.BytesIO(START + body + b"."))


def test_the_number_of_operations_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(growth, "MOST_OPCODES", 100)
    with pytest.raises(PickleError, match="more than 100 operations"):
        scan_pickle(io.BytesIO(START + b"]" * 200 + b"."))


@pytest.mark.parametrize(
    "value",
    [
        {"a": [1, (2, 3)], (1, 2): {3, frozenset({4})}, 2**63: b"x", 2**100: None},
        [[]] * 50,
        ({"k": ()},) * 3,
        "text",
        b"bytes",
        1.5,
        [True, None],
        {i: {"step": i, "key": (i, i)} for i in range(500)},
    ],
)
@pytest.mark.parametrize("protocol", [0, 1, 2, 4, 5])
def test_every_opcode_that_pickle_writes_is_followed(value: Any, protocol: int) -> None:
    shared = [value, value, (value,)]
    scan_pickle(io.BytesIO(pickle.dumps(shared, protocol)))


def test_what_repeats_is_looked_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    looked: list[int] = []
    members: Callable[[Any], Any] = pickles._members
    monkeypatch.setattr(pickles, "_members", lambda value: (looked.append(1), members(value))[1])
    itself = START + b"}q\x00(" + b"".join(_text(f"k{i}") + b"h\x00" for i in range(300)) + b"u."
    stored_tensors(io.BytesIO(itself))
    assert len(looked) == 1


def test_names_of_what_is_nested_without_end_are_refused() -> None:
    nested = START + b"]" * 60_000 + b"a" * 59_999 + b"."
    with pytest.raises(PickleError, match="names of its tensors take more than"):
        stored_tensors(io.BytesIO(nested))
    with pytest.raises(PickleError, match="names of its tensors take more than"):
        entries_of(inert.load(io.BytesIO(nested)))


def test_names_of_nothing_but_dots_are_refused() -> None:
    """A dictionary under an empty key, in another, and so on."""
    nested = START + b"}" + b"X\x00\x00\x00\x00}" * 60_000 + b"s" * 60_000 + b"."
    with pytest.raises(PickleError, match="names of its tensors take more than"):
        entries_of(inert.load(io.BytesIO(nested)))


def test_many_names_of_a_usual_length_are_taken() -> None:
    state = {f"layers.{i}": {"self_attention": [{}, {}]} for i in range(20_000)}
    assert entries_of(state) == ([], [])


def test_a_tensor_that_repeats_its_storage_without_end_is_refused() -> None:
    def read(tensor: bytes) -> Any:
        return stored_tensors(io.BytesIO(START + b"}" + _text("w") + tensor + b"s."))

    assert read(_tensor("1024 16", "0 1")).tensors[0].shape == (1024, 16)
    with pytest.raises(PickleError, match="repeats the 64 bytes"):
        read(_tensor("1048576 1048576", "0 0"))
