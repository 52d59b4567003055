"""The plan of an output file, and writing it: whole and synced under its name, or not at all."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import msgspec
import numpy.typing as npt

from mnnprep.errors import RefusedError, SystemFault, UsageError
from mnnprep.model.files import canonical_json
from mnnprep.weights import copy_ranges as seg
from mnnprep.weights.convert import Rounding, converted
from mnnprep.weights.copying import BytesDone, advise, copy_all, write_all
from mnnprep.weights.dtypes import FLOATING
from mnnprep.weights.files import File
from mnnprep.weights.filters import LeftOut
from mnnprep.weights.hashing import copy_and_hash
from mnnprep.weights.header import Slot, layout, ordered
from mnnprep.weights.plan import Tensor
from mnnprep.weights.resumable_output import LONGEST_SUFFIX, Part, finish_manifest, translated

SCHEMA = "mnnprep.consolidated/1"


class InputFile(msgspec.Struct, kw_only=True):
    """A file that was read: ``sha256`` is None if only parts of a remote one were, or hashing was off."""

    name: str
    size: int
    sha256: str | None


class Written(msgspec.Struct, kw_only=True):
    """One tensor of the output; ``dtype`` is what it has there."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    size: int
    source: str = ""


class Consolidated(msgspec.Struct, kw_only=True):
    """The result of ``mnnprep consolidate``, or (``written`` false) the one it would have.

    It is the manifest, without a path or a time.
    """

    schema: str
    mnnprep: str
    written: bool
    layout: str
    size: int
    sha256: str | None
    tensors: list[Written]
    aliases: dict[str, str]
    left_out: list[LeftOut]
    rounding: list[Rounding]
    inputs: list[InputFile]
    notes: list[str]
    options: dict[str, Any]


@dataclass
class OutputPlan:
    """Everything about the file before a byte of it is written."""

    header: bytes
    slots: list[Slot]
    tensors: Mapping[str, Tensor]
    aliases: Mapping[str, str]
    roundings: dict[str, Rounding] = field(default_factory=dict)
    segments: list[seg.Segment] = field(default_factory=list)

    @property
    def size(self) -> int:
        """The bytes of the whole output."""
        return len(self.header) + (self.slots[-1].end if self.slots else 0)

    def inputs(self) -> set[File]:
        """Return the files that the output is made from."""
        return set().union(*(tensor.sources() for tensor in self.tensors.values()))

    def digest(self) -> str:
        """Return a digest: an unfinished output is of use only to a plan with the same one."""
        state = hashlib.sha256(self.header)
        for slot in self.slots:
            state.update(repr(describe(self.tensors[slot.name])).encode())
        return state.hexdigest()


def describe(tensor: Tensor) -> tuple[object, ...]:
    """Return the origin of a tensor's bytes, as text that changes when they do."""
    pieces = tuple(
        (*((f.identity(), at) for f, at in [p.file.locate(p.offset)]), p.shape, p.start, p.strides)
        for p in tensor.pieces
        if p.elements
    )
    parts = tuple(
        describe(part)
        for part in (getattr(tensor, "a", None), getattr(tensor, "b", None))
        if part is not None
    )
    return (tensor.dtype, tensor.shape, tensor.grid, pieces, parts, getattr(tensor, "scale", None))


def make_plan(tensors: Mapping[str, Tensor], aliases: Mapping[str, str], dtype: str = "") -> OutputPlan:
    """Lay the output out. *dtype* is what floating tensors become; empty leaves them.

    Raises:
        RefusedError: the file is damaged, or not one that mnnprep takes.
    """
    targets = {
        name: (dtype if dtype and t.dtype in FLOATING else t.dtype, t.shape) for name, t in tensors.items()
    }
    names = ordered(targets)
    header, slots = layout([(name, *targets[name]) for name in names], aliases)
    plan = OutputPlan(header, slots, tensors, aliases)
    found: list[seg.Segment] = []
    for slot in slots:
        tensor, at = tensors[slot.name], len(header) + slot.begin
        if slot.dtype == tensor.dtype:
            found += seg.of_tensor(tensor, at)
        else:
            plan.roundings[slot.name] = Rounding(name=slot.name, source=tensor.dtype, target=slot.dtype)
            blocks: Callable[[], Iterator[npt.NDArray[Any]]] = partial(
                converted, tensor, slot.dtype, plan.roundings[slot.name]
            )
            found.append(seg.Make(at, slot.end - slot.begin, blocks, tensor.release))
    plan.segments = seg.merged(found)
    return plan


def write(
    plan: OutputPlan,
    target: Path,
    inputs: list[File],
    *,
    hashed: bool,
    progress: BytesDone,
    manifest: Callable[[str | None, dict[int, str]], Consolidated],
) -> Consolidated:
    """Write the file and its manifest, then give both their names.

    An interrupted run leaves ``TARGET.part``, which the same call goes on with. *manifest* is given the
    output's sha256 and the inputs'.

    Raises:
        RefusedError: there is too little room or an input does not hold what was planned.
        UsageError: another run writes it.
    """
    part = Part(target, plan.digest(), plan.size)
    try:
        with translated(target):
            # What a change of dtype rounds is known only when all of it passes by.
            start = (
                0 if plan.roundings else seg.resume_point(plan.segments, max(part.start, len(plan.header)))
            )
            start = max(start, len(plan.header))
            write_all(part.descriptor, memoryview(plan.header), 0)
            for file in inputs:
                advise(file)
            digest: str | None = None
            digests: dict[int, str] = {}
            if hashed:
                digest, digests = copy_and_hash(
                    plan.segments, len(plan.header), part, start, inputs, progress
                )
            else:
                copy_all(plan.segments, part, start, progress)
            if changed := [file.name for file in inputs if file.changed()]:
                raise RefusedError(
                    "the checkpoint was changed while it was read",
                    seen=", ".join(changed[:5]),
                    next="run it again when nothing writes to it",
                )
            result = manifest(digest, digests)
            part.finish(canonical_json(result))
    except BaseException:
        part.abandon(resumable=not plan.roundings)
        raise
    finally:
        part.close()
    return result


def check_target(target: Path, force: bool) -> None:
    """Require an output that can be written.

    Raises:
        UsageError: the output is there (unless *force*), is not a file, can't be named so, or its directory
            is not there.
        SystemFault: the directory can't be written to.
    """
    other = "give the path of a file, such as out.safetensors"
    if "\0" in str(target):
        raise UsageError("the output's name can't be a file name", seen=repr(str(target)), next=other)
    if target.parent.is_dir():
        longest = os.pathconf(target.parent, "PC_NAME_MAX") - len(LONGEST_SUFFIX)
        if len(os.fsencode(target.name)) > longest:
            raise UsageError(
                "the output's name is too long",
                seen=f"{len(os.fsencode(target.name))} bytes, {longest} are possible",
                next=other,
            )
    if target.is_dir():
        raise UsageError("the output is a directory", seen=str(target), next=other)
    if target.is_symlink():
        raise UsageError(
            "the output is a symbolic link",
            seen=f"{target} -> {os.readlink(target)}",
            next="give the path of the file itself",
        )
    if target.exists() and not target.is_file():
        raise UsageError(
            "the output is not a regular file; mnnprep never replaces such a file",
            seen=str(target),
            next=other,
        )
    if not target.parent.is_dir():
        raise UsageError(
            "the output's directory does not exist", seen=str(target.parent), next=f"mkdir -p {target.parent}"
        )
    finish_manifest(target)
    if target.exists() and not force:
        raise UsageError(
            "the output exists", seen=str(target), next="give another name, or --force to replace it"
        )
    if not os.access(target.parent, os.W_OK):
        raise SystemFault(
            "the output's directory can't be written to",
            seen=str(target.parent),
            next="give another directory",
        )
