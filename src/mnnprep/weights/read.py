"""Reading trained weights: from a checkpoint's path to the one state dict that is meant."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from mnnprep.weights.layouts import read_content
from mnnprep.weights.select import Expected, choose

if TYPE_CHECKING:
    import torch


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


def read_state(path: Path, expected: Expected | None = None) -> State:
    """The state dict in the checkpoint at *path*, executing nothing of it.

    Read are safetensors and files of torch.save (zip and legacy), sharded or not, and a directory that
    holds one of these.  With *expected* the nested dictionary and the prefix are those that fit it best,
    and what does not fit is the caller's to judge; without, the one that stands out by its name.

    Raises:
        UsageError: no such path, or several state dicts could be meant.
        RefusedError: foreign, truncated or damaged; shards missing; a whole pickled module; no tensors.
    """
    content = read_content(path)
    choice = choose(content.tree, content.foreign, expected)
    notes = [*content.notes, *choice.notes]
    if content.foreign:
        classes = sorted(content.foreign)
        listed = ", ".join(classes[:5]) + (f" and {len(classes) - 5} more" if len(classes) > 5 else "")
        notes.append(f"read past other objects, importing and running nothing: {listed}")
    return State(choice.tensors, tuple(notes), choice.rivals)
