"""Reading trained weights: from a checkpoint's path to the one state dict that is meant."""

from __future__ import annotations

import mmap
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mnnprep import deps
from mnnprep.errors import UsageError
from mnnprep.safety import damage
from mnnprep.text import listed
from mnnprep.weights import layouts, lora
from mnnprep.weights.content import Content
from mnnprep.weights.entries import Choice, Expected
from mnnprep.weights.files import LocalFile
from mnnprep.weights.layouts import Join, Reading
from mnnprep.weights.places import Files, Place
from mnnprep.weights.plan import Tensor
from mnnprep.weights.select import choose

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True)
class Chosen:
    """The state dict that is meant, as plans: nothing of its values is read yet."""

    tensors: dict[str, Tensor]
    layout: str
    notes: tuple[str, ...] = ()
    rivals: tuple[str, ...] = ()
    aliases: dict[str, str] = field(default_factory=dict)
    left_out: tuple[tuple[str, str, int], ...] = ()
    unexpected: frozenset[str] = frozenset()
    averaged: bool = False  # taken from a place of averaged weights (EMA)


@dataclass(frozen=True)
class State:
    """A state dict read from a checkpoint.

    ``tensors`` are on the CPU, without gradients, possibly mapped from the file (privately: writing to one
    does not change the file).  ``origin`` says which nested dictionary was taken, which prefix was stripped
    and what was left out; it names no file.  ``rivals``, when not empty, are the places in the checkpoint
    that fit the model equally well and hold different values, the one taken first.
    """

    tensors: dict[str, torch.Tensor]
    origin: tuple[str, ...] = ()
    rivals: tuple[str, ...] = ()


def plan_state(
    place: Place,
    expected: Expected | None = None,
    *,
    reading: Reading = layouts.DEFAULT,
    ema: bool = False,
    at: str = "",
    base: str = "",
) -> Chosen:
    """Return the plan of the state dict in the checkpoint at *place*.

    It reads every layout of :mod:`mnnprep.weights.layouts`, and LoRA adapters over *base*.

    Raises as :func:`read_state`.
    """
    with damage.reading(Path(str(place)), "checkpoint"):
        return _planned(place, expected, reading, ema, at, base)


def _planned(
    place: Place, expected: Expected | None, reading: Reading, ema: bool, at: str, base: str
) -> Chosen:
    adapter = layouts.adapter_file(place)
    if adapter is not None:
        return _with_adapter(place, adapter, expected, reading, ema, at, base)
    if base:
        raise UsageError(
            "--base goes with a LoRA adapter",
            seen=str(place),
            next="leave it out: this checkpoint is not an adapter's directory",
        )
    content, join = layouts.read_content(place, reading)
    return _chosen(content, join, choose(content.tree, content.foreign, expected, ema=ema, at=at))


def _chosen(content: Content, join: Join | None, choice: Choice) -> Chosen:
    notes = [*content.notes, *choice.notes]
    if content.foreign:
        notes.append(
            f"read past other objects, importing and running nothing: {listed(sorted(content.foreign), 5)}"
        )
    tensors = (
        {name: join(name, tensor) for name, tensor in choice.tensors.items()} if join else choice.tensors
    )
    left = [(name, reason, tensor.nbytes) for name, reason, tensor in choice.left_out]
    left += [(name, reason, 0) for name, reason in content.left_out]
    aliases = {
        name: kept for name, kept in content.aliases.items() if kept in tensors and name not in tensors
    }
    return Chosen(
        tensors,
        content.layout,
        tuple(notes),
        choice.rivals,
        aliases,
        tuple(left),
        choice.unexpected,
        choice.averaged,
    )


def _with_adapter(
    place: Place, adapter: Place, expected: Expected | None, reading: Reading, ema: bool, at: str, base: str
) -> Chosen:
    config = lora.read_config(place)
    named = base or str(config.get("base_model_name_or_path") or "")
    target = place.files.at(named) if named else None
    if target is None or not (target.exists() or base):
        raise UsageError(
            "this is a LoRA adapter, but its base model is missing",
            seen=named or "no base is named",
            next="give the base model's weights with --base PATH",
        )
    below = plan_state(target, expected, reading=reading, ema=ema, at=at)
    content = layouts.read_content(adapter, reading)[0]
    over = choose(content.tree, content.foreign, None)
    tensors, notes = lora.merge(below.tensors, over.tensors, config)
    return Chosen(
        tensors,
        f"LoRA over {below.layout}",
        (*below.notes, *notes),
        below.rivals,
        below.aliases,
        below.left_out,
        below.unexpected,
        below.averaged,
    )


def require_fit(chosen: Chosen, expected: Expected, *, strict: bool = False) -> None:
    """Require that *chosen* is one state dict that has every tensor of *expected*, in its shape.

    *strict*: and no other.

    Raises:
        UsageError: it is not.
    """
    if chosen.rivals:
        raise UsageError(
            "several state dicts of the checkpoint fit the model equally well and differ",
            seen=", ".join(chosen.rivals[:10]),
            next="name the one you mean with `mnnprep consolidate --at`, and give what it writes",
        )
    found = {
        "missing": expected.missing([*chosen.tensors, *chosen.aliases]),
        "unexpected": (
            [n for n in chosen.tensors if n not in expected.shapes and not expected.tolerates(n)]
            if strict
            else []
        ),
        "misshapen": [
            f"{name}: checkpoint {list(tensor.shape)} vs model {list(expected.shapes[name] or ())}"
            for name, tensor in chosen.tensors.items()
            if name in expected.shapes and not expected.fits(name, tensor)
        ],
    }
    lines = [f"{title} ({len(names)}): {listed(names)}" for title, names in found.items() if names]
    if lines:
        raise UsageError(
            "the weights don't fit the model",
            seen="; ".join(lines),
            next="give the factory the options that the model was trained with",
        )


def read_state(path: Path, expected: Expected | None = None) -> State:
    """The state dict in the checkpoint at *path*, executing nothing of it.

    Read is every layout that ``mnnprep consolidate`` takes.  With *expected* the nested dictionary and the
    prefix are those that fit it best, and what does not fit is the caller's to judge; without, the one that
    stands out by its name.

    Raises:
        UsageError: no such path, or several state dicts could be meant.
        RefusedError: foreign, truncated or damaged; shards missing; a whole pickled module; no tensors.
    """
    with Files() as files:
        chosen = plan_state(files.at(path), expected)
        loaded = materialize(
            {**chosen.tensors, **{name: chosen.tensors[kept] for name, kept in chosen.aliases.items()}}
        )
    return State(loaded, chosen.notes, chosen.rivals)


def materialize(tensors: Mapping[str, Tensor]) -> dict[str, torch.Tensor]:
    """Return the plans as torch tensors.

    They are mapped privately if they lie in one stretch of a local file, else read.
    """
    torch = deps.require("torch")
    maps: dict[int, Any] = {}
    made: dict[int, Any] = {}
    loaded = {}
    for name, tensor in tensors.items():
        if id(tensor) not in made:
            dtype = getattr(torch, tensor.dtype)
            runs = tensor.runs() if tensor.elements else None
            if (
                runs is not None
                and len(runs) == 1
                and isinstance(file := runs[0].file, LocalFile)
                and runs[0].offset % dtype.itemsize == 0
            ):
                if id(file) not in maps:
                    maps[id(file)] = mmap.mmap(
                        file.fileno(), 0, flags=mmap.MAP_PRIVATE, prot=mmap.PROT_READ | mmap.PROT_WRITE
                    )
                file.read(runs[0].offset + runs[0].length - 1, 1)
                value = torch.frombuffer(
                    maps[id(file)], dtype=dtype, count=tensor.elements, offset=runs[0].offset
                ).reshape(tensor.shape)
            elif tensor.elements:
                value = torch.frombuffer(bytearray(tensor.array().tobytes()), dtype=dtype).reshape(
                    tensor.shape
                )
                tensor.release()
            else:
                value = torch.empty(tensor.shape, dtype=dtype)
            made[id(tensor)] = value
        loaded[name] = made[id(tensor)]
    return loaded
