"""`consolidate`: any checkpoint to one safetensors file that holds what inference needs, and a manifest."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from mnnprep.commands.consolidation import (
    REHEARSE,
    Options,
    Rehearsal,
    RehearsalJob,
    plan_checkpoint,
    plan_live,
    require_options,
)
from mnnprep.commands.reading import SECONDS, read_aside
from mnnprep.errors import RefusedError, UsageError
from mnnprep.formats.backend import Option
from mnnprep.formats.registry import kind_of
from mnnprep.formats.torch.backend import SHAPES
from mnnprep.model.messages import Source
from mnnprep.model.request import DEFAULT_TIMEOUT, Limits, Request
from mnnprep.safety import damage
from mnnprep.safety.leftovers import Scratch
from mnnprep.weights import layouts, lora, writer
from mnnprep.weights.files import File
from mnnprep.weights.messages import ModelShapes
from mnnprep.weights.places import Files
from mnnprep.weights.writer import Consolidated
from mnnprep.workers.failure import StepFailed, internal
from mnnprep.workers.host import Host

BytesOf = Callable[[int, int], None]  # takes the bytes done and those of the whole


def consolidate(
    checkpoint: str,
    target: Path | None,
    options: Options,
    *,
    hashed: bool = True,
    force: bool = False,
    progress: BytesOf = lambda *_: None,
    limits: Limits | None = None,
) -> Consolidated:
    """Write *checkpoint* (a path or an fsspec URL) to *target*, with ``TARGET.manifest.json`` beside it.

    Without a target only plan.

    A checkpoint on this machine is planned in a worker first, within *limits* (a minute, and three quarters
    of the free memory): a damaged file can't keep this process busy.  *progress* is told the bytes that are
    done and those of the whole.

    Raises:
        UsageError: the call is wrong: no such path, names that don't fit, several state dicts that could be
        meant, a target that is there.
        RefusedError: the checkpoint is damaged or incomplete, or takes more than *limits* to read; the disk
        is too small, a package missing.
    """
    require_options(options)
    if target is not None:
        writer.check_target(target, force)
    shapes = model_shapes(options) if options.factory else None
    rehearsed = _rehearsed(checkpoint, options, shapes, target is None, limits or Limits(timeout=SECONDS))
    if rehearsed is not None and rehearsed.plan is not None:
        return rehearsed.plan
    with Files() as files:
        made = plan_checkpoint(files, checkpoint, options.base, options, shapes)
        if rehearsed is not None and made.identities() != rehearsed.files:
            raise RefusedError(
                "the checkpoint was changed while it was read",
                seen=checkpoint,
                next="run it again when nothing writes to it",
            )
        if target is None:
            return made.described({}, None, written=False)
        _refuse_own_input(target, made.inputs)
        return writer.write(
            made.plan,
            target,
            made.inputs,
            hashed=hashed,
            progress=lambda done: progress(done, made.plan.size),
            manifest=lambda digest, digests: made.described(digests, digest, written=True),
        )


def _rehearsed(
    checkpoint: str, options: Options, shapes: ModelShapes | None, shown: bool, limits: Limits
) -> Rehearsal | None:
    """The plan made in a worker; None for a checkpoint behind a URL, which no confined worker can reach."""
    path = local_path(checkpoint)
    base = local_path(options.base or _adapted(path)) if path is not None else None
    if path is None or base is None:
        return None
    places = [place for place in (path, base) if place]
    job = RehearsalJob(
        checkpoint=path,
        base=base,
        linked=[
            place if os.path.isdir(place) else os.path.dirname(place) for place in places if _refers(place)
        ],
        options=options,
        shapes=shapes,
        shown=shown,
    )
    return read_aside(REHEARSE, job, Path(path), limits)


def local_path(text: str) -> str | None:
    """The absolute path that *text* names on this machine, empty for an empty one; None for another URL."""
    scheme, found, rest = text.partition("://")
    if found and scheme != "file":
        return None
    path = rest if found else text
    return os.path.abspath(path) if path else ""


def _adapted(path: str) -> str:
    """The base model that the LoRA adapter at *path* names; empty if there is none, or none such here."""
    with Files() as files, damage.reading(Path(path), "checkpoint"):
        place = files.at(path)
        if layouts.adapter_file(place) is None:
            return ""
        named = str(lora.read_config(place).get("base_model_name_or_path") or "")
        return named if "://" in named or os.path.exists(named) else ""


def _refers(path: str) -> bool:
    """Whether what is at *path* is a directory, or refers to files beside it."""
    return not os.path.isfile(path) or path.endswith((".index", ".index.json"))


def consolidate_live(
    module: Any,
    target: Path | None,
    options: Options,
    *,
    hashed: bool = True,
    force: bool = False,
    progress: BytesOf = lambda *_: None,
) -> Consolidated | None:
    """:func:`consolidate` for a live module.

    If its parameters are shards every rank calls this; rank 0 writes, the others get None.

    Raises as :func:`consolidate`, on rank 0.
    """
    from mnnprep.weights import live

    state = live.state_of(module)
    if live.process_rank():
        live.take_part(state)
        return None
    with live.conducted(state) as tensors:
        require_options(options)
        if target is not None:
            writer.check_target(target, force)
        made = plan_live(tensors, options)
        if target is None:
            return made.described({}, None, written=False)
        target.with_name(f"{target.name}.part.json").unlink(
            missing_ok=True
        )  # a module in memory has no identity to go on with
        return writer.write(
            made.plan,
            target,
            [],
            hashed=hashed,
            progress=lambda done: progress(done, made.plan.size),
            manifest=lambda digest, digests: made.described(digests, digest, written=True),
        )


def model_shapes(options: Options) -> ModelShapes:
    """The names, shapes and ties of the model that the factory builds, in a process of its own."""
    from mnnprep.commands.resolve import resolve

    source = resolve(Request(source=options.factory, factory_args=options.factory_args))
    if Option.STATE_DICT not in kind_of(source.kind).options:
        raise UsageError(
            "--factory does not name a factory",
            seen=options.factory,
            next="give file.py:callable or package.module:callable",
        )
    return _ask(source)


def _ask(source: Source) -> ModelShapes:
    with Scratch() as scratch, Host(SHAPES.worker, scratch=scratch) as host:
        try:
            return host.run(SHAPES, source, timeout=DEFAULT_TIMEOUT).value
        except StepFailed as failure:
            raise failure.error or internal(
                failure, "the factory's model could not be inspected"
            ) from failure


def _refuse_own_input(target: Path, inputs: list[File]) -> None:
    for file in inputs:
        path = getattr(file, "path", None)
        if path is not None and target.exists() and os.path.samefile(path, target):
            raise UsageError("the output is one of the inputs", seen=str(target), next="give another name")
