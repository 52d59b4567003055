"""The way from a place to the tree of what it holds.

The bytes decide which layout they are, not the suffix.
"""

from __future__ import annotations

import tarfile
import zipfile
from collections.abc import Callable
from dataclasses import dataclass

from mnnprep.errors import MnnprepError, RefusedError, UsageError
from mnnprep.text import listed
from mnnprep.weights import (
    deepspeed,
    distributed,
    hdf5,
    lora,
    pickle_scan,
    ranks,
    safetensors,
    shards,
    tensorflow,
    torchfile,
)
from mnnprep.weights.content import Content, damaged
from mnnprep.weights.places import Place
from mnnprep.weights.plan import Tensor

# The names that transformers and diffusers give a model's weights, in the order in which they are looked for.
USUAL_NAMES = (
    "model.safetensors",
    "model.safetensors.index.json",
    "diffusion_pytorch_model.safetensors",
    "diffusion_pytorch_model.safetensors.index.json",
    "pytorch_model.bin",
    "pytorch_model.bin.index.json",
)
ADAPTER_NAMES = ("adapter_model.safetensors", "adapter_model.bin")
SUFFIXES = (
    ".safetensors",
    ".safetensors.index.json",
    ".bin",
    ".bin.index.json",
    ".pt",
    ".pth",
    ".ckpt",
    ".h5",
    ".keras",
)
DAMAGE = (*pickle_scan.DAMAGE, MemoryError, NotImplementedError, RuntimeError, zipfile.BadZipFile)
Join = Callable[[str, Tensor], Tensor]


@dataclass(frozen=True)
class Reading:
    """How a checkpoint is read: ``join`` is for tensor-parallel ranks.

    ``script`` is to take a TorchScript program's weights too.
    """

    join: tuple[ranks.JoinRule, ...] = ()
    script: bool = False


DEFAULT = Reading()


def read_content(place: Place, reading: Reading = DEFAULT) -> tuple[Content, Join | None]:
    """Everything that the checkpoint at *place* (a file, an index of shards, a directory, a prefix) holds.

    The function, if any, makes the whole of a tensor that is spread over ranks.

    Raises:
        UsageError: there is no such path, or a directory leaves open which file is meant.
        RefusedError: the bytes are of no checkpoint layout, are truncated or damaged, or parts are missing.
    """
    if place.is_dir() or (not place.lists and _is_directory_by_members(place)):
        return _read_directory(place, reading)
    if place.exists():
        return _read_file(place, reading), None
    if place.beside(f"{place.name}.index").is_file():
        return tensorflow.read(place.beside(f"{place.name}.index")), None
    raise UsageError(
        "the weights do not exist", seen=str(place), next="give the path of a checkpoint file or directory"
    )


def _is_directory_by_members(place: Place) -> bool:
    """Whether a server that lists nothing has a checkpoint's files below *place*."""
    return not place.name.endswith((*SUFFIXES, ".index")) and any(
        place.join(name).is_file() for name in (distributed.METADATA, *USUAL_NAMES)
    )


def _read_file(place: Place, reading: Reading) -> Content:
    if not place.is_file():
        raise UsageError(
            "the weights are not a regular file",
            seen=str(place),
            next="give the path of a checkpoint file or directory",
        )
    file = place.open()
    head = file.read(0, min(16, file.size))
    try:
        if place.name.endswith(".index.json"):
            return shards.read_index(place, lambda shard: _read_file(shard, reading))
        if head[:4] == b"PK\x03\x04":
            return torchfile.read_zip(file, script=reading.script)
        if safetensors.looks_like_it(head):
            return safetensors.read(file)
        if head[:1] == b"\x80":
            return torchfile.read_legacy(file)
        if head[:8] == hdf5.MAGIC:
            return hdf5.read(file)
        if place.name.endswith(".index") and tensorflow.is_index(file):
            return tensorflow.read(place)
        if file.size >= 512 and file.read(257, 5) == b"ustar" and tarfile.is_tarfile(file.stream()):
            raise RefusedError(
                "this is a tar archive (torch 0.1 wrote its checkpoints so)",
                seen=str(place),
                next="load it with the torch that wrote it and save it again with torch.save",
            )
    except MnnprepError:
        raise
    except DAMAGE as error:
        raise damaged(str(place), file.size, error) from error
    raise RefusedError(
        "this file is not a checkpoint of a known layout",
        seen=f"{place} ({file.size} bytes) begins with {head[:8]!r}",
        next="give a safetensors file, a file written by torch.save, or the index of a sharded one",
    )


def _read_directory(directory: Place, reading: Reading) -> tuple[Content, Join | None]:
    names = directory.list() or [
        name for name in (*USUAL_NAMES, distributed.METADATA, lora.CONFIG) if directory.join(name).exists()
    ]

    def load(place: Place) -> Content:
        return _read_file(place, reading)

    if distributed.METADATA in names:
        return distributed.read(directory), None
    if (zero := deepspeed.directory_of(directory, names)) is not None:
        return deepspeed.read(zero, load), None
    for name in USUAL_NAMES:
        if name in names:
            return load(directory.join(name)), None
    if members := ranks.find(
        [
            n
            for n in names
            if n.endswith((".pt", ".pth", ".bin", ".ckpt", ".safetensors")) or directory.join(n).is_dir()
        ]
    ):
        return ranks.read(directory, members, reading.join, load)
    if "variables" in names and directory.join("variables/variables.index").is_file():
        return tensorflow.read(directory.join("variables/variables.index")), None
    if found := _tensorflow_index(directory, names):
        return tensorflow.read(directory.join(found)), None
    if files := shards.numbered([name for name in names if name.endswith(SUFFIXES)]):
        return shards.read_numbered(directory, files, load), None
    return load(directory.join(_the_one(directory, names))), None


def adapter_file(directory: Place) -> Place | None:
    """The file of a PEFT adapter; None if *directory* is none."""
    if not (directory.is_dir() or directory.system is not None) or not directory.join(lora.CONFIG).is_file():
        return None
    return next((directory.join(name) for name in ADAPTER_NAMES if directory.join(name).is_file()), None)


def _tensorflow_index(directory: Place, names: list[str]) -> str:
    """The index that the ``checkpoint`` file calls the latest, or the only one."""
    found = [
        name
        for name in names
        if name.endswith(".index") and f"{name.removesuffix('.index')}.data-00000-of-" in "\n".join(names)
    ]
    if len(found) > 1 and "checkpoint" in names:
        text = directory.join("checkpoint").read(1 << 20).decode("utf-8", "replace")
        latest = text.partition('model_checkpoint_path: "')[2].partition('"')[0]
        found = [name for name in found if name == f"{latest.rpartition('/')[2]}.index"]
    return found[0] if len(found) == 1 else ""


def _the_one(directory: Place, names: list[str]) -> str:
    """The one file of *directory* that holds the weights."""
    found = [name for name in names if name.endswith(SUFFIXES) and directory.join(name).is_file()]
    indices = [name for name in found if name.endswith(".index.json")]
    for candidates in (indices, found):
        if len(candidates) == 1:
            return candidates[0]
    raise UsageError(
        "the directory leaves open which file holds the weights"
        if found
        else "the directory does not contain weights",
        seen=f"{directory}: {listed(found) or 'no file that ends in ' + ', '.join(SUFFIXES)}",
        next="give the path of one of them" if found else "give the path of a checkpoint",
    )
