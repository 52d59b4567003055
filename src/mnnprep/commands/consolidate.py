"""`consolidate`: any checkpoint to one safetensors file that holds what inference needs, and a manifest."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import msgspec

from mnnprep._version import __version__
from mnnprep.errors import UsageError
from mnnprep.formats.backend import Option
from mnnprep.formats.registry import kind_of
from mnnprep.formats.torch.backend import SHAPES
from mnnprep.model.messages import Source
from mnnprep.model.request import DEFAULT_TIMEOUT, Request
from mnnprep.safety.leftovers import Scratch
from mnnprep.weights import filters, ranks, writer
from mnnprep.weights.dtypes import TARGETS
from mnnprep.weights.entries import Expected
from mnnprep.weights.files import File
from mnnprep.weights.layouts import Reading
from mnnprep.weights.places import Files
from mnnprep.weights.read import Chosen, plan_state, require_fit
from mnnprep.weights.shards import same_values
from mnnprep.weights.writer import Consolidated, InputFile, OutputPlan, Written
from mnnprep.workers.failure import StepFailed, internal
from mnnprep.workers.host import Host

BytesOf = Callable[[int, int], None]  # takes the bytes done and those of the whole


class Options(msgspec.Struct, frozen=True, kw_only=True):
    """The user's choices, in the words of the command line."""

    ema: bool = False
    at: str = ""
    strip: tuple[str, ...] = ()
    drop: tuple[str, ...] = ()
    rename: tuple[str, ...] = ()
    join: tuple[str, ...] = ()
    base: str = ""
    dtype: str = ""
    counters: bool = True
    factory: str = ""
    factory_args: dict[str, str] = msgspec.field(default_factory=dict)


def consolidate(
    checkpoint: str,
    target: Path | None,
    options: Options,
    *,
    hashed: bool = True,
    force: bool = False,
    progress: BytesOf = lambda *_: None,
) -> Consolidated:
    """Write *checkpoint* (a path or an fsspec URL) to *target*, with ``TARGET.manifest.json`` beside it.

    Without a target only plan.

    *progress* is told the bytes that are done and those of the whole.

    Raises:
        UsageError: the call is wrong: no such path, names that don't fit, several state dicts that could be
        meant, a target that is there.
        RefusedError: the checkpoint is damaged or incomplete, the disk too small, a package missing.
    """
    if options.dtype and options.dtype not in TARGETS:
        raise UsageError(
            "this --dtype can't be written",
            seen=options.dtype,
            next="use one of " + ", ".join(TARGETS),
        )
    rules = filters.parse_rules(options.ema, options.counters, options.strip, options.drop, options.rename)
    reading = Reading(tuple(ranks.parse_join(rule) for rule in options.join), script=True)
    if target is not None:
        writer.check_target(target, force)
    expected = model_shapes(options) if options.factory else None
    with Files() as files:
        chosen = plan_state(
            files.at(checkpoint), expected, reading=reading, ema=options.ema, at=options.at, base=options.base
        )
        kept = _kept(chosen, expected, rules)
        plan = writer.make_plan(kept.tensors, kept.aliases, options.dtype)
        inputs = sorted(files.opened(), key=lambda file: file.name)

        def manifest(digest: str | None, digests: Mapping[int, str]) -> Consolidated:
            return _describe(plan, kept, chosen, options, inputs, digests, digest, written=target is not None)

        if target is None:
            return manifest(None, {})
        _refuse_own_input(target, inputs)
        return writer.write(
            plan,
            target,
            inputs,
            hashed=hashed,
            progress=lambda done: progress(done, plan.size),
            manifest=manifest,
        )


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
        if options.dtype and options.dtype not in TARGETS:
            raise UsageError(
                "this --dtype can't be written",
                seen=options.dtype,
                next="use one of " + ", ".join(TARGETS),
            )
        if target is not None:
            writer.check_target(target, force)
        chosen = Chosen(dict(tensors), "live module")
        kept = _kept(
            chosen,
            None,
            filters.parse_rules(options.ema, options.counters, options.strip, options.drop, options.rename),
        )
        plan = writer.make_plan(kept.tensors, kept.aliases, options.dtype)

        def manifest(digest: str | None, digests: Mapping[int, str]) -> Consolidated:
            return _describe(plan, kept, chosen, options, [], digests, digest, written=target is not None)

        if target is None:
            return manifest(None, {})
        target.with_name(f"{target.name}.part.json").unlink(
            missing_ok=True
        )  # a module in memory has no identity to go on with
        return writer.write(
            plan,
            target,
            [],
            hashed=hashed,
            progress=lambda done: progress(done, plan.size),
            manifest=manifest,
        )


def model_shapes(options: Options) -> Expected:
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


def _ask(source: Source) -> Expected:
    with Scratch() as scratch, Host(SHAPES.worker, scratch=scratch) as host:
        try:
            found = host.run(SHAPES, source, timeout=DEFAULT_TIMEOUT).value
        except StepFailed as failure:
            raise failure.error or internal(
                failure, "the factory's model could not be inspected"
            ) from failure
    return found.expected()


def _kept(chosen: Chosen, expected: Expected | None, rules: filters.Rules) -> filters.Kept:
    """Return the tensors of the chosen state dict that are written."""
    if chosen.rivals:
        raise UsageError(
            "several state dicts of the checkpoint fit the model equally well and differ",
            seen=", ".join(chosen.rivals[:10]),
            next="name the one you mean with --at",
        )
    tensors = dict(chosen.tensors)
    strangers = []
    if expected is not None:
        require_fit(chosen, expected)
        strangers = [
            filters.LeftOut(name, "not in the model", tensors.pop(name).nbytes)
            for name in list(tensors)
            if name not in expected.shapes
        ]
    kept = filters.apply(
        tensors, chosen.aliases, rules, averaged=chosen.averaged, fitted=expected is not None
    )
    if expected is not None:
        _tie(kept, expected)
    kept.left_out = [*(filters.LeftOut(*entry) for entry in chosen.left_out), *strangers, *kept.left_out]
    return kept


def _tie(kept: filters.Kept, expected: Expected) -> None:
    """Names that are one tensor in the model and hold the same values are kept once."""
    renamed = {old: kept.renamed.get(old, old) for group in expected.tied for old in group}
    for group in expected.tied:
        first, *others = [
            name for name in expected.shapes if name in group and renamed[name] in kept.tensors
        ] or [""]
        for name in others:
            if same_values(kept.tensors[renamed[first]], kept.tensors[renamed[name]]):
                del kept.tensors[renamed[name]]
                kept.aliases[renamed[name]] = renamed[first]
            else:
                raise UsageError(
                    "one tensor in the model has different values in the checkpoint",
                    seen=f"{first} and {name}",
                    next="build the model without the tie",
                )
        if first:
            kept.aliases |= {
                renamed[name]: renamed[first] for name in group if renamed[name] not in kept.tensors
            }


def _refuse_own_input(target: Path, inputs: list[File]) -> None:
    for file in inputs:
        path = getattr(file, "path", None)
        if path is not None and target.exists() and os.path.samefile(path, target):
            raise UsageError("the output is one of the inputs", seen=str(target), next="give another name")


def _describe(
    plan: OutputPlan,
    kept: filters.Kept,
    chosen: Chosen,
    options: Options,
    inputs: list[File],
    digests: Mapping[int, str],
    digest: str | None,
    *,
    written: bool,
) -> Consolidated:
    origin = {new: old for old, new in kept.renamed.items()}
    return Consolidated(
        schema=writer.SCHEMA,
        mnnprep=__version__,
        written=written,
        layout=chosen.layout,
        size=plan.size,
        sha256=digest,
        tensors=[
            Written(
                name=s.name,
                dtype=s.dtype,
                shape=s.shape,
                size=s.end - s.begin,
                source=origin.get(s.name, s.name),
            )
            for s in plan.slots
        ],
        aliases=dict(plan.aliases),
        left_out=sorted(kept.left_out, key=lambda entry: entry.name),
        rounding=[plan.roundings[slot.name] for slot in plan.slots if slot.name in plan.roundings]
        if written
        else [],
        inputs=[InputFile(name=file.name, size=file.size, sha256=digests.get(id(file))) for file in inputs],
        notes=[*chosen.notes, *kept.notes],
        options=_stated(options),
    )


def _stated(options: Options) -> dict[str, Any]:
    """The options that say something; those that name places are told by the inputs."""
    plain = msgspec.to_builtins(options)
    unsaid = msgspec.to_builtins(Options())
    return {
        name: value
        for name, value in plain.items()
        if value != unsaid[name] and name not in ("base", "factory")
    }
