"""Pickles that grow or never end, and archives of torch.save that unfold, lead outside, or are none."""

from __future__ import annotations

import struct
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from evaluation.hostile.case import CHECKPOINT, MODEL, Canary, hostile, shared_library
from evaluation.hostile.pickle_files import WEIGHT, archive, call, integer, long, state, tensor


def doubled(count: int) -> bytes:
    """Lists that hold the one before twice, *count* deep: 2^count leaves."""
    return (
        b"\x80\x02]"
        + b"".join(b"q" + bytes([i]) + b"(h" + bytes([i]) + b"h" + bytes([i]) + b"l" for i in range(count))
        + b"."
    )


STREAMS: dict[str, tuple[str, Callable[[Canary], bytes]]] = {
    "billion-lists": ("lists that double 60 times", lambda c: doubled(60)),
    "deep-tuples": ("200,000 tuples in each other", lambda c: b"\x80\x02)" + b"\x85" * 200_000 + b"."),
    "deep-lists": (
        "200,000 lists in each other",
        lambda c: b"\x80\x02" + b"]" * 200_000 + b"a" * 199_999 + b".",
    ),
    "many-marks": ("255,000 opcodes that copy the top", lambda c: b"\x80\x02]" + b"2" * 255_000 + b"."),
    "dup-build": (
        "a dictionary that is set to itself",
        lambda c: b"\x80\x02}q\x00(" + b"".join(long(f"k{i}") + b"h\x00" for i in range(50_000)) + b"u.",
    ),
    "tuple-squares": (
        "tuples of everything so far",
        lambda c: (
            b"\x80\x02)"
            + b"".join(
                b"q" + bytes([i]) + b"(" + b"h" + bytes([i]) + b"h" + bytes([i]) + b"t" for i in range(200)
            )
            + b"."
        ),
    ),
    "long-integer": (
        "an integer of 2 MB",
        lambda c: b"\x80\x02\x8b" + struct.pack("<i", 2_000_000) + b"\x7f" * 2_000_000 + b".",
    ),
    "decimal-integer": ("an integer of 2,000,000 decimal digits", lambda c: b"I" + b"7" * 2_000_000 + b"\n."),
    "huge-string": (
        "a string that says it has 2^62 bytes",
        lambda c: b"\x80\x04\x8d" + struct.pack("<Q", 1 << 62) + b"x.",
    ),
    "huge-frame": ("a frame of 2^62 bytes", lambda c: b"\x80\x04\x95" + struct.pack("<Q", 1 << 62) + b"]."),
    "huge-memo": ("a memo at 2^32 - 1", lambda c: b"\x80\x02]r\xff\xff\xff\xff."),
    "odd-persistent": (
        "persistent ids that are no storages",
        lambda c: (
            b"\x80\x02}("
            + long("a")
            + b"(tQ"
            + long("b")
            + integer(5)
            + b"Q"
            + long("c")
            + b"("
            + long("storage")
            + integer(1)
            + b"tQu."
        ),
    ),
    "stack-underflow": ("opcodes that take from an empty stack", lambda c: b"\x80\x02RRRtub."),
    "no-stop": ("a pickle without an end", lambda c: b"\x80\x02]q\x00"),
    "unhashable": ("a dictionary with a list for a key", lambda c: b"\x80\x02}(]K\x01u."),
    "huge-size": (
        "a tensor of 2^60 numbers over 64 bytes",
        lambda c: state(("w", tensor(size=(1 << 30, 1 << 30)))),
    ),
    "huge-view": (
        "a tensor of 2^40 numbers that repeats one",
        lambda c: state(("w", tensor(size=(1 << 20, 1 << 20), stride=(0, 0)))),
    ),
    "negative-view": ("a tensor at an offset below 0", lambda c: state(("w", tensor(offset=-5, size=(-3,))))),
    "key-traversal": (
        "a storage whose key leads to the secret",
        lambda c: state(("w", tensor(key="../../secrets/secret.bin"))),
    ),
    "key-absolute": (
        "a storage whose key is the secret's path",
        lambda c: state(("w", tensor(key=c.secret))),
    ),
    "escapes": (
        "names that are escapes and a script",
        lambda c: state(("\x1b[31mred\u202e\x07<script>document.title='executed'</script>", tensor())),
    ),
    "many-tensors": (
        "100,000 tensors of one storage",
        lambda c: state(*((f"w{i}", tensor()) for i in range(100_000))),
    ),
    "surrogates": (
        "a name that is no text",
        lambda c: b"\x80\x02}(X\x03\x00\x00\x00\xed\xa0\x80" + tensor() + b"u.",
    ),
    "names-of-state": (
        "groups of modules that are no dictionaries",
        lambda c: (
            b"\x80\x02ctorch.nn.modules.module\nModule\n)\x81}("
            + long("_modules")
            + integer(5)
            + long("_parameters")
            + b"]"
            + long("training")
            + b"\x88ub."
        ),
    ),
}
for _name, (_tries, _stream) in STREAMS.items():

    @hostile("torch-weights", "stream", _name, _tries, commands=CHECKPOINT)
    def _(canary: Canary, stream: Any = _stream) -> Path:
        return archive(canary.model / "model.pt", {"data.pkl": stream(canary), "data/0": WEIGHT})


@hostile("torch-weights", "archive", "record-bomb", "a data.pkl of 1 GB in 1 MB", commands=CHECKPOINT)
def _(canary: Canary) -> Path:
    return archive(
        canary.model / "model.pt", {"data.pkl": b"\x80\x02" + b"]" * (1 << 30) + b"."}, compress=True
    )


@hostile(
    "torch-weights", "archive", "storage-bomb", "a storage of 1.5 GB of zeros in 1.5 MB", commands=CHECKPOINT
)
def _(canary: Canary) -> Path:
    pickled = state(("w", tensor(count=3 << 27, size=(3 << 27,))))
    return archive(canary.model / "model.pt", {"data.pkl": pickled, "data/0": bytes(3 << 29)}, compress=True)


@hostile("torch-weights", "archive", "twice", "two records of one name", commands=CHECKPOINT)
def _(canary: Canary) -> Path:
    path = archive(canary.model / "model.pt", {"data.pkl": state(("w", tensor())), "data/0": WEIGHT})
    with zipfile.ZipFile(path, "a") as made:
        made.writestr("archive/data.pkl", call("os", "system", canary.shell))
    return path


@hostile("torch-weights", "archive", "overlap", "200 records that share their bytes", commands=CHECKPOINT)
def _(canary: Canary) -> Path:
    path = archive(
        canary.model / "model.pt",
        {"data.pkl": state(*((f"w{i}", tensor(str(i))) for i in range(200))), "data/0": bytes(1 << 26)},
        compress=True,
    )
    data = path.read_bytes()
    end = data.rindex(b"PK\x05\x06")
    start = struct.unpack("<I", data[end + 16 : end + 20])[0]
    central, entries, at = data[start:end], [], 0
    while at < len(central):
        n, m, k = struct.unpack("<3H", central[at + 28 : at + 34])
        entries.append(central[at : at + 46 + n + m + k])
        at += 46 + n + m + k
    one = next(e for e in entries if e[46:].startswith(b"archive/data/0"))
    for i in range(1, 200):
        name = f"archive/data/{i}".encode()
        entries.append(one[:28] + struct.pack("<3H", len(name), 0, 0) + one[34:46] + name)
    body = b"".join(entries)
    tail = data[end : end + 8] + struct.pack("<HHII", len(entries), len(entries), len(body), start) + b"\0\0"
    path.write_bytes(data[:start] + body + tail)
    return path


@hostile("torch-weights", "archive", "traversal", "records with .. and absolute names", commands=CHECKPOINT)
def _(canary: Canary) -> Path:
    path = archive(canary.model / "model.pt", {"data.pkl": state(("w", tensor())), "data/0": WEIGHT})
    with zipfile.ZipFile(path, "a") as made:
        made.writestr(f"archive/../../../fired/{Path(canary.written).name}", b"x")
        made.writestr(canary.written, b"x")
    return path


@hostile("torch-weights", "archive", "library", "a shared library among the records", commands=CHECKPOINT)
def _(canary: Canary) -> Path:
    data = shared_library(canary).read_bytes()
    return archive(
        canary.model / "model.pt",
        {
            "data.pkl": state(("w", tensor())),
            "data/0": WEIGHT,
            "extra/evil.so": data,
            "data/aotinductor/model/m.so": data,
        },
    )


@hostile(
    "torch-weights",
    "archive",
    "encrypted-flag",
    "a directory with flags and methods that nobody knows",
    commands=CHECKPOINT,
)
def _(canary: Canary) -> Path:
    path = archive(canary.model / "model.pt", {"data.pkl": state(("w", tensor())), "data/0": WEIGHT})
    data = bytearray(path.read_bytes())
    for at in [i for i in range(len(data) - 4) if data[i : i + 4] == b"PK\x01\x02"]:
        data[at + 8 : at + 12] = struct.pack("<HH", 0xFFFF, 0xFFFF)
    path.write_bytes(data)
    return path


@hostile(
    "npz",
    "pickle",
    "object-array",
    "an object array with a call, given as a model and a checkpoint",
    commands=(*MODEL, "consolidate"),
    control="numpy",
)
def _(canary: Canary) -> Path:
    path = canary.model / "weights.npz"
    header = b"{'descr': '|O', 'fortran_order': False, 'shape': (1,), }"
    header += b" " * (64 - (10 + len(header) + 1) % 64) + b"\n"
    with zipfile.ZipFile(path, "w") as made:
        made.writestr(
            "w.npy",
            b"\x93NUMPY\x01\x00"
            + struct.pack("<H", len(header))
            + header
            + call("os", "system", canary.shell),
        )
    return path
