"""From the state dict that is meant to what inference needs, under the names that the user wants.

In this order: the components of wrappers go; of weights and their averages one is kept; training state in
flat names, what the user drops, and counters go; prefixes are stripped and names replaced; of tied weights
one is kept.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

import msgspec

from mnnprep.errors import UsageError
from mnnprep.text import listed
from mnnprep.weights.entries import AVERAGED, WRAPPERS, words_of
from mnnprep.weights.plan import Tensor
from mnnprep.weights.shards import same_values

# Components of flat names that only training needs: torch.optim's and Megatron's names, Keras' and
# TensorFlow's slots.
GRADIENT = frozenset({"grad", "main_grad", "grad_buffer", "gradients"})
OPTIMIZER = frozenset(
    {
        "exp_avg",
        "exp_avg_sq",
        "max_exp_avg_sq",
        "momentum_buffer",
        "optimizer",
        "optim",
        "_optimizer",
        "optimizer_weights",
        ".OPTIMIZER_SLOT",
        "OPTIMIZER_SLOT",
        "Adam",
        "Adam_1",
        "Momentum",
        "RMSProp",
        "beta1_power",
        "beta2_power",
        "save_counter",
        "_CHECKPOINTABLE_OBJECT_GRAPH",
    }
)
SCALER = frozenset({"loss_scaler", "grad_scaler", "amp_scaler", "_growth_tracker", "loss_scale"})
COUNTER = "num_batches_tracked"


class LeftOut(msgspec.Struct, frozen=True):
    """A tensor or object that is not in the output, its size where it is known, and why."""

    name: str
    reason: str
    size: int


@dataclass(frozen=True)
class Rules:
    """The user's rules for names.

    ``rename`` are (regular expression, replacement), ``drop`` regular expressions.
    """

    ema: bool = False
    counters: bool = True
    strip: tuple[str, ...] = ()
    drop: tuple[re.Pattern[str], ...] = ()
    rename: tuple[tuple[re.Pattern[str], str], ...] = ()


@dataclass
class Kept:
    """The kept ``tensors``, in the checkpoint's order.

    ``aliases`` lead from the names of tied tensors to the one that is kept.
    """

    tensors: dict[str, Tensor]
    aliases: dict[str, str] = field(default_factory=dict)
    left_out: list[LeftOut] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    renamed: dict[str, str] = field(default_factory=dict)


def parse_rules(
    ema: bool, counters: bool, strip: Iterable[str], drop: Iterable[str], rename: Iterable[str]
) -> Rules:
    """The text forms of the options.

    Raises:
        UsageError: the text is of another form, or a value is out of bounds.
    """
    pairs = []
    for rule in rename:
        pattern, arrow, replacement = rule.partition("=>")
        if not arrow or not pattern:
            raise UsageError(
                "a --rename rule could not be read",
                seen=rule,
                next="write 'REGEX=>NAME', for example '^encoder\\.=>'",
            )
        pairs.append((_regex("--rename", pattern), replacement))
    return Rules(ema, counters, tuple(strip), tuple(_regex("--drop", text) for text in drop), tuple(pairs))


def _regex(option: str, text: str) -> re.Pattern[str]:
    try:
        return re.compile(text)
    except re.error as error:
        raise UsageError(
            f"{option} is not given a valid regular expression",
            seen=f"{text}: {error}",
            next="fix it; dots and brackets need a backslash",
        ) from error


def apply(
    tensors: Mapping[str, Tensor], aliases: Mapping[str, str], rules: Rules, *, averaged: bool, fitted: bool
) -> Kept:
    """Return the tensors of *tensors* that are written, under their new names.

    *averaged*: the dictionary taken was that of averaged weights already; *fitted*: the names are a model's
    own, and are neither unwrapped nor judged by how they look.

    Raises:
        UsageError: two names become one, nothing is left, or ``rules.ema`` finds no averages.
    """
    kept = Kept({}, dict(aliases))
    names = {name: name for name in tensors} if fitted else _unwrapped(tensors, kept)
    by_name = dict(tensors) if fitted else {names[name]: tensor for name, tensor in tensors.items()}
    if not fitted:
        by_name = _one_of_twins(by_name, rules, averaged, kept)
    elif rules.ema and not averaged:
        raise _no_averages()
    for name, tensor in by_name.items():
        reason = "" if fitted else _training(name)
        if not reason and not rules.counters and re.split(r"[./]", name)[-1] == COUNTER:
            reason = "a counter that inference does not use"
        if not reason and any(pattern.search(name) for pattern in rules.drop):
            reason = "dropped by --drop"
        if reason:
            kept.left_out.append(LeftOut(name, reason, tensor.nbytes))
        else:
            kept.tensors[name] = tensor
    if not kept.tensors:
        raise UsageError(
            "no tensor is left to be written",
            seen=listed([f"{x.name}: {x.reason}" for x in kept.left_out]),
            next="loosen the filters",
        )
    unwrapped = {names.get(name, name): names.get(target, target) for name, target in kept.aliases.items()}
    kept.aliases = {
        name: target
        for name, target in unwrapped.items()
        if target in kept.tensors and not any(p.search(name) for p in rules.drop)
    }
    _rename(kept, rules)
    _untie(kept)
    return kept


def _unwrapped(tensors: Mapping[str, Tensor], kept: Kept) -> dict[str, str]:
    """Names without wrappers: private components anywhere, ``module.`` where every name begins with it."""
    private = WRAPPERS - {"module"}
    names = {name: ".".join(part for part in name.split(".") if part not in private) for name in tensors}
    while names and all(name.startswith("module.") for name in names.values()):
        names = {name: new.removeprefix("module.") for name, new in names.items()}
    if len(set(names.values())) < len(names):
        return {name: name for name in tensors}  # the wrappers tell names apart
    if any(name != new for name, new in names.items()):
        kept.notes.append("names of wrappers stripped")
    return names


def _one_of_twins(tensors: dict[str, Tensor], rules: Rules, averaged: bool, kept: Kept) -> dict[str, Tensor]:
    """Choose between weights and their averages in one dictionary.

    It keeps the raw ones, or with ``ema`` the averages under the raw names.
    """
    raw = {
        name: tensor for name, tensor in tensors.items() if not words_of(re.split(r"[./]", name)) & AVERAGED
    }
    without_dots: dict[str, str] = {}
    for name in raw:
        for part in range(name.count(".") + 1):
            without_dots.setdefault(
                name.split(".", part)[-1].replace(".", ""), name
            )  # "model_ema.diffusionweight", as latent-diffusion writes
    twins: dict[str, str] = {}
    for name in tensors.keys() - raw.keys():
        rest = [
            part for part in re.split(r"[.]", name) if not words_of([part]) & AVERAGED and part != "module"
        ]
        suffixless = re.sub(r"_(ema|swa|avg)$", "", name)
        candidates = [".".join(rest), suffixless, without_dots.get("".join(rest), "")]
        found = next((c for c in candidates if c in raw), "") or next(
            (r for r in raw if rest and r.endswith("." + ".".join(rest))), ""
        )
        if found and raw[found].shape == tensors[name].shape:
            twins[name] = found
    if rules.ema and not twins and not averaged:
        raise _no_averages()
    if not twins:
        return {name: t for name, t in tensors.items() if name != "n_averaged"}
    groups = {name.split(".")[0] for name in twins}
    chosen = {raw_name: name for name, raw_name in sorted(twins.items())}
    result = {}
    for name, tensor in tensors.items():
        if name in twins or (name not in raw and name.split(".")[0] in groups):
            if name not in twins or not rules.ema:
                reason = (
                    f"the average of {twins[name]} (--ema takes it)"
                    if name in twins
                    else "bookkeeping of the averages"
                )
                kept.left_out.append(LeftOut(name, reason, tensor.nbytes))
        elif rules.ema and name in chosen:
            result[name] = tensors[chosen[name]]
            kept.left_out.append(LeftOut(name, f"raw weights; --ema takes {chosen[name]}", tensor.nbytes))
        else:
            result[name] = tensor
    if rules.ema:
        kept.notes.append(
            f"averaged weights (EMA) taken for {len(chosen)} tensors, the raw ones for"
            f" {len(result) - len(chosen)} that have none"
        )
    return result


def _no_averages() -> UsageError:
    return UsageError(
        "the checkpoint does not contain averaged weights",
        seen="--ema",
        next="leave --ema out, or see what there is with --dry-run",
    )


def _training(name: str) -> str:
    """Why a flat name is of training alone; empty when it is not."""
    parts = set(re.split(r"[./]", name))
    if parts & GRADIENT:
        return "gradient"
    if parts & OPTIMIZER:
        return "optimizer state"
    return "loss scaler" if parts & SCALER else ""


def _rename(kept: Kept, rules: Rules) -> None:
    def new_name(name: str) -> str:
        new = name
        for prefix in rules.strip:
            new = new.removeprefix(prefix)
        for pattern, replacement in rules.rename:
            try:
                new = pattern.sub(replacement, new)
            except (re.error, IndexError) as error:
                raise UsageError(
                    "a --rename replacement does not fit its pattern",
                    seen=f"{replacement}: {error}",
                    next="refer to groups as \\1",
                ) from error
        return new

    tensors: dict[str, Tensor] = {}
    homes: dict[str, str] = {}
    for name, tensor in kept.tensors.items():
        new = new_name(name)
        if not new or (new in tensors and not same_values(tensors[new], tensor)):
            raise UsageError(
                "two tensors get the same name" if new else "a tensor gets an empty name",
                seen=f"{homes.get(new, '')} and {name} become {new!r}" if new else name,
                next="change --strip or --rename",
            )
        tensors.setdefault(new, tensor)
        homes.setdefault(new, name)
        if new != name:
            kept.renamed[name] = new
    for prefix in rules.strip:
        if not any(name.startswith(prefix) for name in kept.tensors):
            raise UsageError(
                "no name begins with the prefix of --strip",
                seen=prefix,
                next=f"names are such as {next(iter(kept.tensors))}",
            )
    kept.tensors = tensors
    kept.aliases = {new_name(name): new_name(target) for name, target in kept.aliases.items()}


def _untie(kept: Kept) -> None:
    """Keep the first of names that are one tensor; the others become aliases."""
    first: dict[object, str] = {}
    for name, tensor in list(kept.tensors.items()):
        key = tensor.key()
        if key is not None and first.setdefault(key, name) != name:
            kept.aliases[name] = first[key]
            del kept.tensors[name]
    kept.aliases = {
        name: target
        for name, target in sorted(kept.aliases.items())
        if target in kept.tensors and name not in kept.tensors
    }
    if kept.aliases:
        kept.notes.append(
            f"{len(kept.aliases)} tied names kept once:"
            f" {listed([f'{n} is {t}' for n, t in kept.aliases.items()], 5)}"
        )
