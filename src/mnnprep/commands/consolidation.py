"""The plan of a consolidation: what of a checkpoint is written, under which names.

It is made in a worker first (:func:`rehearse`): reading a stranger's file is the part that a damaged one can
make endless, where copying takes as long as the bytes are many.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import msgspec

from mnnprep._version import __version__
from mnnprep.errors import UsageError
from mnnprep.model.reach import LinkedPath, ReadPath
from mnnprep.weights import filters, ranks, writer
from mnnprep.weights.dtypes import TARGETS
from mnnprep.weights.entries import Expected
from mnnprep.weights.files import File
from mnnprep.weights.layouts import Reading
from mnnprep.weights.messages import ModelShapes
from mnnprep.weights.places import Files
from mnnprep.weights.plan import Tensor
from mnnprep.weights.read import Chosen, plan_state, require_fit
from mnnprep.weights.shards import same_values
from mnnprep.weights.writer import Consolidated, InputFile, OutputPlan, Written
from mnnprep.workers.step import Step, reader


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


class RehearsalJob(msgspec.Struct, frozen=True, kw_only=True):
    """A checkpoint on this machine to plan, by absolute paths.

    ``linked`` are the directories with the files that it refers to. With ``shown`` the plan is the reply.
    """

    checkpoint: ReadPath
    base: ReadPath
    linked: list[LinkedPath]
    options: Options
    shapes: ModelShapes | None
    shown: bool


class Rehearsal(msgspec.Struct, frozen=True):
    """The files that were read, each as a text that changes when it does.

    ``plan`` is None if it is not ``shown``.
    """

    files: list[str]
    plan: Consolidated | None


def rehearse(job: RehearsalJob) -> Rehearsal:
    """Plan what is to be written, and write nothing."""
    with Files() as files:
        made = plan_checkpoint(files, job.checkpoint, job.base, job.options, job.shapes)
        return Rehearsal(made.identities(), made.described({}, None, written=False) if job.shown else None)


REHEARSE = Step.of(rehearse, reader(__name__))


@dataclass(frozen=True)
class Planned:
    """A plan, with what its manifest says of it."""

    plan: OutputPlan
    kept: filters.Kept
    chosen: Chosen
    options: Options
    inputs: list[File]

    def identities(self) -> list[str]:
        """Return a text of each input that changes when the file does."""
        return [file.identity() for file in self.inputs]

    def described(self, digests: Mapping[int, str], digest: str | None, *, written: bool) -> Consolidated:
        """The manifest."""
        plan, kept = self.plan, self.kept
        origin = {new: old for old, new in kept.renamed.items()}
        return Consolidated(
            schema=writer.SCHEMA,
            mnnprep=__version__,
            written=written,
            layout=self.chosen.layout,
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
            inputs=[
                InputFile(name=file.name, size=file.size, sha256=digests.get(id(file)))
                for file in self.inputs
            ],
            notes=[*self.chosen.notes, *kept.notes],
            options=_stated(self.options),
        )


def plan_checkpoint(
    files: Files, checkpoint: str, base: str, options: Options, shapes: ModelShapes | None
) -> Planned:
    """Return the plan of the checkpoint at the path or URL *checkpoint*, its files opened in *files*.

    Raises:
        UsageError: no such path, names that don't fit, several state dicts that could be meant.
        RefusedError: the checkpoint is damaged or incomplete, or a package is missing.
    """
    expected = shapes.expected() if shapes is not None else None
    chosen = plan_state(
        files.at(checkpoint),
        expected,
        reading=_reading(options),
        ema=options.ema,
        at=options.at,
        base=base,
    )
    kept = _kept(chosen, expected, _rules(options))
    plan = writer.make_plan(kept.tensors, kept.aliases, options.dtype)
    return Planned(plan, kept, chosen, options, sorted(files.opened(), key=lambda file: file.name))


def plan_live(tensors: Mapping[str, Tensor], options: Options) -> Planned:
    """Return the plan of a live module's tensors.

    Raises:
        UsageError: the options don't fit them.
    """
    chosen = Chosen(dict(tensors), "live module")
    kept = _kept(chosen, None, _rules(options))
    plan = writer.make_plan(kept.tensors, kept.aliases, options.dtype)
    return Planned(plan, kept, chosen, options, [])


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


def require_options(options: Options) -> None:
    """Require what can be required of *options* before a checkpoint is read.

    Raises:
        UsageError: no such dtype, or a rule that can't be read.
    """
    _rules(options)
    _reading(options)
    if options.dtype and options.dtype not in TARGETS:
        raise UsageError(
            "this --dtype can't be written",
            seen=options.dtype,
            next="use one of " + ", ".join(TARGETS),
        )


def _rules(options: Options) -> filters.Rules:
    return filters.parse_rules(options.ema, options.counters, options.strip, options.drop, options.rename)


def _reading(options: Options) -> Reading:
    return Reading(tuple(ranks.parse_join(rule) for rule in options.join), script=True)


def _stated(options: Options) -> dict[str, Any]:
    """The options that say something; those that name places are told by the inputs."""
    plain = msgspec.to_builtins(options)
    unsaid = msgspec.to_builtins(Options())
    return {
        name: value
        for name, value in plain.items()
        if value != unsaid[name] and name not in ("base", "factory")
    }
