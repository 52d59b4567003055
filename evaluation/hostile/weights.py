"""Checkpoints: safetensors, their indexes, distributed and Lightning checkpoints, archives of samples: paths,
sizes and code in them.
"""

from __future__ import annotations

import io
import json
import os
import struct
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from evaluation.hostile.case import CHECKPOINT, Canary, hostile, relative
from evaluation.hostile.pickle_files import WEIGHT, archive, call, long, state, tensor

SEEN = ("inspect", "check", "consolidate")


def safetensors(path: Path, header: Any, data: bytes = bytes(64), size: int | None = None) -> Path:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text) if size is None else size) + text + data)
    return path


def entry(
    dtype: str = "F32", shape: tuple[int, ...] = (16,), offsets: tuple[int, int] = (0, 64)
) -> dict[str, Any]:
    return {"dtype": dtype, "shape": list(shape), "data_offsets": list(offsets)}


HEADERS: dict[str, tuple[str, Any]] = {
    "beyond": ("offsets beyond the file", {"w": entry(offsets=(1 << 40, (1 << 40) + 64))}),
    "negative": ("offsets below 0", {"w": entry(offsets=(-64, 0))}),
    "overlap": ("tensors that share their bytes", {"a": entry(), "b": entry()}),
    "hole": ("bytes that no tensor has", {"a": entry("F32", (4,), (32, 48))}),
    "huge-shape": ("a shape of 2^60 numbers", {"w": entry(shape=(1 << 30, 1 << 30))}),
    "overflow": ("a shape whose product is 2^64 + 16", {"w": entry(shape=(1 << 32, 1 << 32))}),
    "zero-size": (
        "2^20 empty tensors",
        {f"w{i}": entry(shape=(0, 1 << 62), offsets=(0, 0)) for i in range(1 << 16)},
    ),
    "dtype": ("a dtype that is none", {"w": entry(dtype="PICKLE")}),
    "shape-text": ("a shape of text", {"w": entry() | {"shape": ["a", None, 1.5]}}),
    "float-offsets": ("offsets that are no integers", {"w": entry() | {"data_offsets": [0.0, "64"]}}),
    "list": ("a header that is a list", [1, 2]),
    "entry-list": ("an entry that is a list", {"w": [1]}),
    "deep": ("a header of 100,000 lists", b"[" * 100_000 + b"]" * 100_000),
    "deep-metadata": (
        "metadata of 100,000 lists",
        b'{"__metadata__":' + b"[" * 100_000 + b"]" * 100_000 + b"}",
    ),
    "twice": (
        "a name that stands twice",
        b'{"w":{"dtype":"F32","shape":[16],"data_offsets":[0,64]},"w":{"dtype":"I64","shape":[8],"data_offsets":[0,64]}}',
    ),
    "surrogate": (
        "a name that is half a surrogate",
        b'{"\\ud800":{"dtype":"F32","shape":[16],"data_offsets":[0,64]}}',
    ),
    "names": (
        "names that are paths, escapes and scripts",
        {
            "../../fired/written": entry("F32", (4,), (0, 16)),
            "\x1b[31m\u202ered": entry("F32", (4,), (16, 32)),
            "<script>document.title='executed'</script>": entry("F32", (8,), (32, 64)),
            "__metadata__": {"\x1b]0;x\x07": "<script>document.title='executed'</script>"},
        },
    ),
    "long-name": ("a name of 70,000 letters", {"n" * 70_000: entry()}),
    "big-number": (
        "an offset of 10,000 digits",
        b'{"w":{"dtype":"F32","shape":[16],"data_offsets":[0,' + b"9" * 10_000 + b"]}}",
    ),
}
for _name, (_tries, _header) in HEADERS.items():

    @hostile("safetensors", "header", _name, _tries, commands=SEEN)
    def _(canary: Canary, header: Any = _header) -> Path:
        return safetensors(canary.model / "model.safetensors", header)


@hostile("safetensors", "header", "huge-header", "a header that says it has 2^62 bytes", commands=SEEN)
def _(canary: Canary) -> Path:
    return safetensors(canary.model / "model.safetensors", {"w": entry()}, size=1 << 62)


def secret_safetensors(canary: Canary) -> Path:
    return safetensors(canary.secrets / "secret.safetensors", {"w": entry()}, canary.token)


INDEXES: dict[str, Callable[[Canary], str]] = {
    "parent": lambda c: relative(str(c.secrets / "secret.safetensors"), c.model),
    "absolute": lambda c: str(c.secrets / "secret.safetensors"),
    "inner-parent": lambda c: "x/../../secrets/secret.safetensors",
    "url": lambda c: f"file://{c.secrets}/secret.safetensors",
    "linked-directory": lambda c: os.symlink(c.secrets, c.model / "d") or "d/secret.safetensors",
    "network": lambda c: "http://127.0.0.1:9/secret.safetensors",
    "device": lambda c: "/dev/zero",
    "nul": lambda c: "a\0b",
    "list": lambda c: ["a"],  # type: ignore[dict-item,return-value]
}
for _name, _shard in INDEXES.items():

    @hostile(
        "safetensors",
        "index",
        _name,
        f"an index whose shard is elsewhere ({_name})",
        commands=(*SEEN, "consolidate"),
        control="",
    )
    def _(canary: Canary, shard: Any = _shard) -> Path:
        secret_safetensors(canary)
        (canary.model / "x").mkdir()
        path = canary.model / "model.safetensors.index.json"
        path.write_text(json.dumps({"metadata": {}, "weight_map": {"w": shard(canary)}}))
        return path


@hostile("safetensors", "index", "directory", "a directory whose index leads elsewhere", commands=SEEN)
def _(canary: Canary) -> Path:
    secret_safetensors(canary)
    shard = relative(str(canary.secrets / "secret.safetensors"), canary.model)
    (canary.model / "model.safetensors.index.json").write_text(json.dumps({"weight_map": {"w": shard}}))
    return canary.model


@hostile("safetensors", "index", "bin", "an index of .bin files that leads elsewhere", commands=SEEN)
def _(canary: Canary) -> Path:
    archive(canary.secrets / "secret.bin.pt", {"data.pkl": state(("w", tensor())), "data/0": canary.token})
    path = canary.model / "pytorch_model.bin.index.json"
    path.write_text(
        json.dumps({"weight_map": {"w": relative(str(canary.secrets / "secret.bin.pt"), canary.model)}})
    )
    return path


@hostile("dcp", "metadata", "code", "a .metadata that calls", commands=SEEN, control="pickle")
def _(canary: Canary) -> Path:
    (canary.model / ".metadata").write_bytes(call("os", "system", canary.shell))
    (canary.model / "__0_0.distcp").write_bytes(WEIGHT)
    return canary.model / ".metadata"


@hostile(
    "dcp",
    "metadata",
    "directory",
    "a directory of a distributed checkpoint whose metadata call",
    commands=SEEN,
)
def _(canary: Canary) -> Path:
    (canary.model / ".metadata").write_bytes(call("os", "system", canary.shell))
    (canary.model / "__0_0.distcp").write_bytes(call("os", "system", canary.shell))
    return canary.model


def dcp(canary: Canary, place: str, size: int = 16) -> Path:
    """A distributed checkpoint of one tensor, whose bytes lie in the file that *place* names."""
    import pickle

    import torch
    from torch.distributed.checkpoint.filesystem import _StorageInfo
    from torch.distributed.checkpoint.metadata import (
        ChunkStorageMetadata,
        Metadata,
        MetadataIndex,
        TensorProperties,
        TensorStorageMetadata,
    )

    chunk = ChunkStorageMetadata(torch.Size([0]), torch.Size([size]))
    described = TensorStorageMetadata(TensorProperties(torch.float32), torch.Size([size]), [chunk])
    length = os.path.getsize(canary.secrets / "saved") if (canary.secrets / "saved").exists() else 64
    where = {MetadataIndex("w", torch.Size([0]), 0): _StorageInfo(place, 0, length)}
    (canary.model / ".metadata").write_bytes(pickle.dumps(Metadata({"w": described}, None, where)))
    return canary.model


for _name, _place in {"parent": "../secrets/saved", "absolute": "{}/saved", "device": "/dev/zero"}.items():

    @hostile("dcp", "metadata", _name, "chunks in a file elsewhere", commands=SEEN)
    def _(canary: Canary, place: str = _place) -> Path:
        archive(canary.secrets / "saved", {"data.pkl": b"\x80\x02" + tensor() + b".", "data/0": canary.token})
        return dcp(canary, place.format(canary.secrets))


@hostile("dcp", "metadata", "huge", "a tensor of 2^50 numbers in no bytes", commands=SEEN)
def _(canary: Canary) -> Path:
    (canary.model / "__0_0.distcp").write_bytes(WEIGHT)
    return dcp(canary, "__0_0.distcp", 1 << 50)


@hostile(
    "lightning",
    "code",
    "callbacks",
    "a Lightning checkpoint whose callbacks and hyperparameters call",
    commands=CHECKPOINT,
    control="torch",
)
def _(canary: Canary) -> Path:
    code = f"cos\nsystem\n(S{canary.shell!r}\ntR".encode()
    items = (
        long("state_dict")
        + b"}("
        + long("w")
        + tensor()
        + b"u"
        + long("callbacks")
        + code
        + long("hyper_parameters")
        + code
        + long("pytorch-lightning_version")
        + long("2.4.0")
    )
    return archive(canary.model / "last.ckpt", {"data.pkl": b"\x80\x02}(" + items + b"u.", "data/0": WEIGHT})


@hostile(
    "deepspeed",
    "code",
    "optimizer-states",
    "a DeepSpeed directory whose optimizer states call",
    commands=SEEN,
)
def _(canary: Canary) -> Path:
    (canary.model / "latest").write_text("../secrets")
    step = canary.model / "global_step1"
    step.mkdir()
    code = f"cos\nsystem\n(S{canary.shell!r}\ntR".encode()
    for name in ("mp_rank_00_model_states.pt", "zero_pp_rank_0_mp_rank_00_optim_states.pt"):
        archive(
            step / name,
            {"data.pkl": b"\x80\x02}(" + long("module") + code + long("optimizer_state_dict") + code + b"u."},
        )
    return canary.model


@hostile("deepspeed", "code", "latest", "a DeepSpeed directory whose latest leads elsewhere", commands=SEEN)
def _(canary: Canary) -> Path:
    (canary.model / "latest").write_text("../secrets")
    archive(
        canary.secrets / "mp_rank_00_model_states.pt",
        {
            "data.pkl": b"\x80\x02}(" + long("module") + b"}(" + long("w") + tensor() + b"uu.",
            "data/0": canary.token,
        },
    )
    return canary.model


@hostile("lora", "paths", "base", "an adapter whose base model is elsewhere", commands=SEEN)
def _(canary: Canary) -> Path:
    secret_safetensors(canary)
    (canary.model / "adapter_config.json").write_text(
        json.dumps(
            {
                "base_model_name_or_path": str(canary.secrets),
                "peft_type": "LORA",
                "r": 1,
                "lora_alpha": 1e308,
                "target_modules": ".*",
            }
        )
    )
    safetensors(
        canary.model / "adapter_model.safetensors",
        {
            "base_model.model.w.lora_A.weight": entry("F32", (1, 8), (0, 32)),
            "base_model.model.w.lora_B.weight": entry("F32", (8, 1), (32, 64)),
        },
    )
    return canary.model


@hostile("tar", "slip", "members", "a tar with .., absolute names, links and devices", commands=CHECKPOINT)
def _(canary: Canary) -> Path:
    path = canary.model / "model.tar"
    with tarfile.open(path, "w") as made:
        for name, kind, target in (
            ("pickle", tarfile.REGTYPE, ""),
            ("storages", tarfile.SYMTYPE, canary.secret),
            ("tensors", tarfile.LNKTYPE, canary.secret),
            ("../fired/written", tarfile.REGTYPE, ""),
            (canary.written, tarfile.REGTYPE, ""),
            ("dev", tarfile.CHRTYPE, ""),
        ):
            info = tarfile.TarInfo(name)
            info.type, info.linkname = kind, target
            made.addfile(info)
    return path


@hostile("zip", "archive", "quine", "an archive in an archive in an archive, 1,000 deep", commands=CHECKPOINT)
def _(canary: Canary) -> Path:
    data = b"x"
    for _ in range(1000):
        held = io.BytesIO()
        with zipfile.ZipFile(held, "w") as made:
            made.writestr("model.zip", data)
        data = held.getvalue()
    path = canary.model / "model.zip"
    path.write_bytes(data)
    return path


@hostile("zip", "archive", "million-names", "an archive of 200,000 empty records", commands=CHECKPOINT)
def _(canary: Canary) -> Path:
    path = canary.model / "model.pt"
    with zipfile.ZipFile(path, "w") as made:
        made.writestr("a/data.pkl", b"\x80\x02}.")
        for i in range(200_000):
            made.writestr(f"a/data/{i}", b"")
    return path


# --- samples
# --------------------------------------------------------------------------------------------------------


def sampled(canary: Canary) -> Path:
    """The model that takes the samples."""
    from evaluation.hostile.onnx_files import node, save

    return save(canary, [node("Tanh", ["x"], ["y"])])


def npy(shape: str, dtype: str, data: bytes) -> bytes:
    header = f"{{'descr': '{dtype}', 'fortran_order': False, 'shape': {shape}, }}".encode()
    header += b" " * (64 - (10 + len(header) + 1) % 64) + b"\n"
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header)) + header + data


def _npz(path: Path, data: bytes, repeat: int = 0) -> None:
    with (
        zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as made,
        made.open("x.npy", "w", force_zip64=True) as out,
    ):
        out.write(data)
        for _ in range(repeat):
            out.write(bytes(1 << 20))


def _png(path: Path, width: int, height: int) -> None:
    import zlib

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    body = zlib.compress(bytes(1 << 24), 9)
    path.write_bytes(
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
        + chunk(b"IDAT", body)
        + chunk(b"IEND", b"")
    )


SAMPLES: dict[str, tuple[str, Callable[[Canary], None]]] = {
    "s.npz": (
        "an object array with a call",
        lambda c: _npz(c.model / "s.npz", npy("(1,)", "|O", call("os", "system", c.shell))),
    ),
    "bomb.npz": (
        "1.9 GB of zeros in 2 MB",
        lambda c: _npz(c.model / "bomb.npz", npy("(1, 498073600)", "<f4", b""), 1900),
    ),
    "huge.npz": (
        "a header of 2^60 numbers",
        lambda c: _npz(c.model / "huge.npz", npy(f"({1 << 30}, {1 << 30})", "<f4", b"")),
    ),
    "object.npy": (
        "an object array with a call",
        lambda c: (
            (c.model / "object.npy").write_bytes(npy("(1,)", "|O", call("os", "system", c.shell))) and None
        ),
    ),
    "header.npy": (
        "a header that is an expression",
        lambda c: (
            (c.model / "header.npy").write_bytes(npy(f"__import__('os').system({c.shell!r})", "<f4", b""))
            and None
        ),
    ),
    "big.png": ("a picture of 60,000 by 60,000", lambda c: _png(c.model / "big.png", 60_000, 60_000)),
    "big.wav": (
        "a sound that says it has 2^32 bytes",
        lambda c: (
            (c.model / "big.wav").write_bytes(
                b"RIFF\xff\xff\xff\xffWAVEfmt \x10\0\0\0\x01\0\xff\xff\x44\xac\0\0\xff\xff\xff\xff\xff\xff\x10\0data\xff\xff\xff\xff"
            )
            and None
        ),
    ),
}
for _file, (_tries, _write) in SAMPLES.items():

    @hostile(
        "samples",
        _file.partition(".")[2],
        _file.partition(".")[0],
        _tries,
        commands=("prepare", "compare"),
        extra=("--samples", f"../model/{_file}"),
    )
    def _(canary: Canary, write: Any = _write) -> Path:
        write(canary)
        return sampled(canary)


@hostile(
    "samples",
    "paths",
    "linked",
    "a directory of samples with a link to the secret",
    commands=("prepare",),
    extra=("--samples", "../model/d"),
)
def _(canary: Canary) -> Path:
    (canary.model / "d").mkdir()
    np.savez(canary.model / "d" / "a.npz", x=np.ones((1, 16), np.float32))
    os.symlink(canary.secret_text, canary.model / "d" / "b.npz")
    os.mkfifo(canary.model / "d" / "c.npz")
    return sampled(canary)
