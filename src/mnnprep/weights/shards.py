"""Checkpoints in several files: an index with a ``weight_map``, or numbered files without one.

Format facts: transformers' ``SAFE_WEIGHTS_INDEX_NAME`` and ``WEIGHTS_INDEX_NAME`` (``*.index.json`` with
``weight_map``, from a tensor's name to its file), and the numbering ``NAME-00001-of-00003.SUFFIX``.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path, PurePosixPath

import numpy as np

from mnnprep.errors import RefusedError
from mnnprep.safety.beside import require_beside
from mnnprep.text import listed
from mnnprep.weights.content import Content, text
from mnnprep.weights.places import Place
from mnnprep.weights.plan import Tensor

INDEX_LIMIT = 256 << 20
NUMBERED = re.compile(r"^(.*)-(\d+)-of-(\d+)(\.[^.]+)$")

Read = Callable[[Place], Content]


def inside(name: str, index: str) -> str:
    """*name*, when it can only be a file below the index.

    Raises:
        RefusedError: the file is damaged, or not one that mnnprep takes.
    """
    parts = PurePosixPath(name)
    if (
        not name
        or parts.is_absolute()
        or ".." in parts.parts
        or "\\" in name
        or "\0" in name
        or name.endswith(".index.json")
    ):
        raise RefusedError(
            "the index names a file that can't be its shard",
            seen=f"{index}: {name!r}",
            next="download the checkpoint again",
        )
    return str(parts)


def read_index(index: Place, read: Read) -> Content:
    """The tensors that ``weight_map`` names, each from its shard."""
    weight_map = _weight_map(index)
    shards: dict[str, list[str]] = {}
    for name, file in weight_map.items():
        shards.setdefault(inside(file, index.name), []).append(name)
    missing = sorted(file for file in shards if not index.beside(file).is_file())
    if missing:
        raise RefusedError(
            f"{len(missing)} of {len(shards)} shards are missing",
            seen=listed(missing),
            next=f"put them beside {index.name}",
        )
    if index.system is None:
        require_beside(Path(index.path), (Path(index.beside(file).path) for file in shards))
    contents: dict[str, dict[str, Tensor]] = {}
    foreign: frozenset[str] = frozenset()
    notes = [f"read from {len(shards)} shards"]
    unlisted = 0
    layout = ""
    aliases: dict[str, str] = {}
    for file in sorted(shards):
        shard = read(index.beside(file))
        tree = {text(key): value for key, value in shard.tree.items()} if isinstance(shard.tree, dict) else {}
        absent = [name for name in shards[file] if name not in tree]
        if absent:
            raise RefusedError(
                f"a shard lacks {len(absent)} of the tensors that the index places in it",
                seen=f"{file}: {listed(absent)}",
                next="download the checkpoint again",
            )
        contents[file] = tree
        unlisted += len(tree) - len(shards[file])
        foreign |= shard.foreign
        layout = shard.layout
        aliases |= shard.aliases
    for file, tree in contents.items():
        for name in tree:
            if weight_map.get(name, file) != file:
                _require_equal(name, tree[name], file, contents[weight_map[name]][name], weight_map[name])
    if unlisted:
        notes.append(f"{unlisted} entries of the shards are not in the index and were left out")
    tensors = {name: contents[file][name] for file in sorted(shards) for name in shards[file]}
    left = tuple(
        (name, f"in {file}, but not in its index")
        for file, tree in contents.items()
        for name in tree
        if name not in weight_map
    )
    return Content(tensors, f"{layout} shards", foreign, tuple(notes), aliases, left)


def numbered(names: list[str]) -> list[str]:
    """The files of the one numbered set among *names*; empty if there is none, or more.

    Raises:
        RefusedError: a number is missing.
    """
    sets: dict[tuple[str, int, str], dict[int, str]] = {}
    for name in names:
        if found := NUMBERED.match(name):
            sets.setdefault((found[1], int(found[3]), found[4]), {})[int(found[2])] = name
    if len(sets) != 1:
        return []
    (stem, count, suffix), files = next(iter(sets.items()))
    first = 0 if 0 in files else 1
    gaps = [number for number in range(first, first + count) if number not in files]
    if gaps or len(files) != count:
        raise RefusedError(
            f"{len(gaps)} of {count} shards are missing",
            seen=f"{stem}-*-of-{count:05}{suffix}: no number {listed([str(n) for n in gaps])}",
            next="put them into the same directory",
        )
    return [files[number] for number in sorted(files)]


def read_numbered(directory: Place, names: list[str], read: Read) -> Content:
    """Return all tensors of numbered files that have no index.

    A name that stands in two must hold the same bytes.
    """
    tensors: dict[str, Tensor] = {}
    homes: dict[str, str] = {}
    foreign: frozenset[str] = frozenset()
    aliases: dict[str, str] = {}
    layout = ""
    for file in names:
        shard = read(directory.join(file))
        layout, foreign, aliases = shard.layout, foreign | shard.foreign, aliases | shard.aliases
        for key, value in shard.tree.items() if isinstance(shard.tree, dict) else ():
            name = text(key)
            if not isinstance(value, Tensor):
                continue
            if name in tensors:
                _require_equal(name, value, file, tensors[name], homes[name])
            else:
                tensors[name], homes[name] = value, file
    return Content(
        tensors, f"{layout} shards", foreign, (f"read from {len(names)} shards without an index",), aliases
    )


def same_values(one: Tensor, other: Tensor) -> bool:
    """Whether two tensors hold the same bytes."""
    if one.dtype != other.dtype or one.shape != other.shape:
        return False
    if one.key() == other.key():
        return True
    same = (
        all(
            np.array_equal(a.view(np.uint8), b.view(np.uint8))
            for a, b in zip(one.blocks(), other.blocks(), strict=False)
        )
        if one.grid == other.grid
        else np.array_equal(one.array().view(np.uint8), other.array().view(np.uint8))
    )
    one.release()
    other.release()
    return same


def _require_equal(name: str, one: object, file: str, other: object, home: str) -> None:
    if not (isinstance(one, Tensor) and isinstance(other, Tensor) and same_values(one, other)):
        raise RefusedError(
            "a name stands in two shards with different values",
            seen=f"{name} in {home} and {file}",
            next="use the shards of one save: download the checkpoint again into an empty directory",
        )


def _weight_map(index: Place) -> dict[str, str]:
    try:
        weight_map = json.loads(index.read(INDEX_LIMIT))["weight_map"]
        if (
            isinstance(weight_map, dict)
            and weight_map
            and all(isinstance(file, str) and file for file in weight_map.values())
        ):
            return weight_map
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise RefusedError(
            "this is not the index of a sharded checkpoint",
            seen=f"{index.name}: {error}",
            next="give an index with a weight_map, or a shard itself",
        ) from error
    raise RefusedError(
        "the index names no shards",
        seen=index.name,
        next="give an index whose weight_map maps tensors to files",
    )
