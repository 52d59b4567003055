"""From a path to the objects it holds: which layout the bytes are, and reading it without executing anything.

Format facts: safetensors is an 8-byte little-endian length and a JSON header
(github.com/huggingface/safetensors, "Format"); shards are listed in ``*.index.json`` under ``weight_map``
(transformers' ``SAFE_WEIGHTS_INDEX_NAME`` and ``WEIGHTS_INDEX_NAME``); a torch zip holds ``NAME/data.pkl`` and
``NAME/data/KEY`` records, TorchScript also ``NAME/constants.pkl``; the legacy torch format is five pickles
followed by the storages (``torch.serialization._legacy_save``); before that, torch wrote tar files.
"""

from __future__ import annotations

import json
import os
import struct
import tarfile
import warnings
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

from mnnprep import deps
from mnnprep.errors import MnnprepError, RefusedError, UsageError
from mnnprep.weights.inert import ENCODING, pickle_module

# The names that transformers and diffusers give a model's weights, in the order in which they are looked for.
USUAL_NAMES = (
    "model.safetensors",
    "model.safetensors.index.json",
    "diffusion_pytorch_model.safetensors",
    "diffusion_pytorch_model.safetensors.index.json",
    "pytorch_model.bin",
    "pytorch_model.bin.index.json",
)
SUFFIXES = (".safetensors", ".safetensors.index.json", ".bin", ".bin.index.json", ".pt", ".pth", ".ckpt")

_FORCE_WEIGHTS_ONLY = "TORCH_FORCE_WEIGHTS_ONLY_LOAD"
_LIMIT_INDEX = 256 << 20


@dataclass(frozen=True)
class Content:
    """What a checkpoint holds: ``tree``, of dictionaries, lists, tensors and :class:`~mnnprep.weights.inert.Foreign`.

    ``foreign`` are the full names of the classes that were read past; ``notes`` what a user should know.
    """

    tree: Any
    foreign: frozenset[str] = frozenset()
    notes: tuple[str, ...] = field(default=())


def read_content(path: Path) -> Content:
    """Everything that the checkpoint at *path* (a file, an index of shards, or a directory) holds.

    Raises:
        UsageError: there is no such path, or a directory leaves open which file is meant.
        RefusedError: the bytes are of no checkpoint layout, are truncated or damaged, or shards are missing.
    """
    if not path.exists():
        raise UsageError("the weights do not exist", seen=str(path), next="give the path of a checkpoint file or directory")
    if path.is_dir():
        path = _file_in(path)
    if not path.is_file():
        raise UsageError("the weights are not a regular file", seen=str(path), next="give the path of a checkpoint file or directory")
    try:
        with path.open("rb") as file:
            head = file.read(9)
    except OSError as error:
        raise UsageError("the weights can't be opened", seen=f"{path}: {error.strerror}", next="check the permissions of the file") from error
    try:
        if path.name.endswith(".index.json"):
            return _read_shards(path)
        if head[:4] == b"PK\x03\x04":
            return _read_zip(path)
        if _is_safetensors(head):
            return _read_safetensors(path)
        if head[:1] == b"\x80":
            return _read_torch(path, mapped=False)
        if tarfile.is_tarfile(path):
            raise RefusedError(
                "this is a tar archive (torch 0.1 wrote its checkpoints so)",
                seen=str(path),
                next="load it with the torch that wrote it and save it again with torch.save",
            )
    except MnnprepError:
        raise
    except Exception as error:
        raise _damaged(path, error) from error
    raise RefusedError(
        "this file is not a checkpoint of a known layout",
        seen=f"{path} ({path.stat().st_size} bytes) begins with {head[:8]!r}",
        next="give a safetensors file, a file written by torch.save, or the index of a sharded one",
    )


def _file_in(directory: Path) -> Path:
    """The one file of *directory* that holds the weights."""
    for name in USUAL_NAMES:
        if (directory / name).is_file():
            return directory / name
    found = sorted(p for p in directory.iterdir() if p.is_file() and p.name.endswith(SUFFIXES))
    indices = [p for p in found if p.name.endswith(".index.json")]
    if len(indices) == 1:
        return indices[0]
    if len(found) == 1:
        return found[0]
    names = ", ".join(p.name for p in found[:10]) + (f" and {len(found) - 10} more" if len(found) > 10 else "")
    raise UsageError(
        "the directory leaves open which file holds the weights" if found else "the directory holds no weights",
        seen=f"{directory}: {names or 'no file that ends in ' + ', '.join(SUFFIXES)}",
        next="give the path of one of them" if found else "give the path of a checkpoint",
    )


def _is_safetensors(head: bytes) -> bool:
    return len(head) == 9 and head[8:9] == b"{" and 0 < struct.unpack("<Q", head[:8])[0] <= 100_000_000


def _read_safetensors(path: Path) -> Content:
    deps.require("torch")
    deps.require("safetensors")
    from safetensors.torch import load_file

    return Content(load_file(path, device="cpu"))


def _read_zip(path: Path) -> Content:
    """A zip that torch.save wrote; mapped into memory where its records are stored plainly."""
    with zipfile.ZipFile(path) as archive:
        records = archive.infolist()
    names = {r.filename for r in records}
    root = records[0].filename.split("/", 1)[0] if records else ""
    if f"{root}/constants.pkl" in names:
        raise RefusedError(
            "this is a TorchScript program, not a checkpoint",
            seen=str(path),
            next="give it as the source itself, without a factory; or save its weights with torch.save(model.state_dict(), FILE)",
        )
    if f"{root}/data.pkl" not in names:
        raise RefusedError(
            "this zip was not written by torch.save",
            seen=f"{path}: no {root}/data.pkl among its {len(names)} records",
            next="give a file written by torch.save(model.state_dict(), FILE)",
        )
    prefix = f"{root}/data/"
    storages = {r.filename.removeprefix(prefix): r for r in records if r.filename.startswith(prefix)}
    plain = all(r.compress_type == zipfile.ZIP_STORED for r in storages.values())
    return _read_torch(path, mapped=plain, record_bytes={key: r.file_size for key, r in storages.items()})


def _read_torch(path: Path, *, mapped: bool, record_bytes: dict[str, int] | None = None) -> Content:
    torch = deps.require("torch")
    foreign: set[str] = set()
    with warnings.catch_warnings(), _own_unpickler_allowed():
        warnings.simplefilter("ignore")
        tree = torch.load(
            str(path), map_location="cpu", mmap=mapped, weights_only=False, pickle_module=pickle_module(foreign, record_bytes), encoding=ENCODING
        )
    return Content(tree, frozenset(foreign))


@contextmanager
def _own_unpickler_allowed() -> Iterator[None]:
    """Lift the environment variable that makes torch.load refuse every unpickler but its own: ours is as strict."""
    value = os.environ.pop(_FORCE_WEIGHTS_ONLY, None)
    try:
        yield
    finally:
        if value is not None:
            os.environ[_FORCE_WEIGHTS_ONLY] = value


def _read_shards(index: Path) -> Content:
    """The tensors that ``weight_map`` of *index* names, each from its shard."""
    if (size := index.stat().st_size) > _LIMIT_INDEX:
        raise RefusedError("the index of the shards is too large", seen=f"{index}: {size} bytes", next="give the index of a sharded checkpoint")
    weight_map = _weight_map(index)
    shards: dict[str, list[str]] = {}
    for name, file in weight_map.items():
        shards.setdefault(file, []).append(name)
    for file in shards:
        parts = PurePosixPath(file)
        if parts.is_absolute() or ".." in parts.parts or "\\" in file or file.endswith(".index.json"):
            raise RefusedError("the index names a file that can't be its shard", seen=f"{index}: {file!r}", next="download the checkpoint again")
    missing = sorted(file for file in shards if not (index.parent / file).is_file())
    if missing:
        listed = ", ".join(missing[:10]) + (f" and {len(missing) - 10} more" if len(missing) > 10 else "")
        raise RefusedError(f"{len(missing)} of {len(shards)} shards are missing", seen=listed, next=f"put them into {index.parent}")
    tensors: dict[str, Any] = {}
    foreign: frozenset[str] = frozenset()
    unlisted = 0
    for file in sorted(shards):
        shard = read_content(index.parent / file)
        tree = {_text(key): value for key, value in shard.tree.items()} if isinstance(shard.tree, dict) else {}
        absent = [name for name in shards[file] if name not in tree]
        if absent:
            raise RefusedError(
                f"a shard lacks {len(absent)} of the tensors that the index places in it",
                seen=f"{file}: {', '.join(absent[:10])}",
                next="download the checkpoint again",
            )
        tensors.update((name, tree[name]) for name in shards[file])
        unlisted += len(tree) - len(shards[file])
        foreign |= shard.foreign
    notes = [f"read from {len(shards)} shards"]
    if unlisted:
        notes.append(f"{unlisted} entries of the shards are not in the index and were left out")
    return Content(tensors, foreign, tuple(notes))


def _weight_map(index: Path) -> dict[str, str]:
    try:
        weight_map = json.loads(index.read_bytes())["weight_map"]
        if isinstance(weight_map, dict) and weight_map and all(isinstance(file, str) and file for file in weight_map.values()):
            return weight_map
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise RefusedError(
            "this is not the index of a sharded checkpoint", seen=f"{index}: {error}", next="give an index with a weight_map, or a shard itself"
        ) from error
    raise RefusedError("the index names no shards", seen=str(index), next="give an index whose weight_map maps tensors to files")


def _text(key: Any) -> Any:
    """Byte strings of Python 2 as text; any other key as it is."""
    return key.decode("utf-8", "replace") if isinstance(key, bytes) else key


def _damaged(path: Path, error: Exception) -> RefusedError:
    first_line = (str(error).strip().splitlines() or [""])[0]
    return RefusedError(
        "the checkpoint can't be read: it is truncated, damaged, or not what its first bytes say",
        seen=f"{path} ({path.stat().st_size} bytes): {type(error).__name__}: {first_line[:300]}",
        next="compare its size and hash with the original's and download or copy it again; a checkpoint must be written by torch.save or safetensors",
    )
