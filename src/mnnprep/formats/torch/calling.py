"""How a module is called: as its user calls it, positional parameters by position.

A hook sees the arguments as they were passed (torch.nn.Module.register_forward_pre_hook: without
``with_kwargs``, the positional ones alone), so a call by keyword is another computation than ``model(x)``.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch
    from torch import nn

Parameter = inspect.Parameter
BY_PLACE = (Parameter.POSITIONAL_ONLY, Parameter.POSITIONAL_OR_KEYWORD)
NAMED = (*BY_PLACE, Parameter.KEYWORD_ONLY)
OPEN = {
    "args": Parameter.VAR_POSITIONAL,
    "kwargs": Parameter.VAR_KEYWORD,
}  # of a forward that says nothing of itself

# The wrappers of distributed training and compilation, and where each keeps the module it passes its
# arguments to.
WRAPPERS = {
    "DistributedDataParallel": "module",
    "DataParallel": "module",
    "OptimizedModule": "_orig_mod",
    "FullyShardedDataParallel": "_fsdp_wrapped_module",
}


@dataclass(frozen=True)
class Default:
    """The default of a parameter that nobody gave a tensor."""

    value: object


@dataclass(frozen=True)
class Call:
    """The arguments of a call: names of tensors, and defaults between them, by place.

    The other names go by keyword.
    """

    places: tuple[str | Default, ...]
    keywords: tuple[str, ...] = ()

    def __call__(self, module: nn.Module, tensors: Mapping[str, torch.Tensor]) -> object:
        """Return what *module* gives for *tensors*, by input name."""
        arguments = [place.value if isinstance(place, Default) else tensors[place] for place in self.places]
        return module(*arguments, **{name: tensors[name] for name in self.keywords})


def unwrapped(module: nn.Module) -> nn.Module:
    """The module inside the wrappers of distributed training and compilation."""
    while type(module).__name__ in WRAPPERS and type(module).__module__.startswith("torch."):
        module = getattr(module, WRAPPERS[type(module).__name__])
    return module


def parameters_of(module: nn.Module) -> list[Parameter]:
    """Return the parameters of a module's forward, in order, without ``self``."""
    import torch

    module = unwrapped(module)
    if isinstance(module, torch.jit.ScriptModule):
        arguments = module.forward.schema.arguments  # type: ignore[attr-defined]
        return [_scripted(argument) for argument in arguments if argument.name != "self"]
    try:
        return list(inspect.signature(module.forward).parameters.values())
    except (TypeError, ValueError):  # built in, or no function at all
        return [Parameter(name, kind) for name, kind in OPEN.items()]


def _scripted(argument: torch.Argument) -> Parameter:
    kind = Parameter.KEYWORD_ONLY if argument.kwarg_only else Parameter.POSITIONAL_OR_KEYWORD
    default = argument.default_value if argument.has_default_value() else Parameter.empty
    return Parameter(argument.name, kind, default=default)


def forward_parameters(module: nn.Module) -> list[str]:
    """Return the names a module's forward takes, in order.

    ``self``, ``*args`` and ``**kwargs`` are left out.
    """
    return [p.name for p in parameters_of(module) if p.kind in NAMED]


def takes_more(module: nn.Module) -> bool:
    """Whether a module's forward takes inputs beyond those it names."""
    return any(p.kind not in NAMED for p in parameters_of(module))


def in_order(module: nn.Module, names: Sequence[str]) -> list[str]:
    """Return *names* as the forward has them.

    Those of ``*args`` stand by their number, others it does not name last, as they are given.
    """
    parameters = parameters_of(module)
    places = {p.name: place for place, p in enumerate(parameters)}
    star = next((p.name for p in parameters if p.kind is Parameter.VAR_POSITIONAL), None)

    def place(name: str) -> tuple[int, int]:
        number = _number(name, star)
        return (
            (places[star or ""], number)
            if number is not None and name not in places
            else (places.get(name, len(places)), 0)
        )

    return sorted(names, key=place)


def calling(module: nn.Module, names: Sequence[str]) -> Call:
    """The call of *module* with inputs of these *names*.

    The leading run of given parameters goes by place, what comes after a gap by keyword.  If something
    after the gap has no keyword (a positional-only parameter, an element of ``*args``), the gap is filled
    with the defaults.  Names that the forward does not have are elements of ``*args``: all of them if
    there is no ``**kwargs``, else those called ``args_0``, ``args_1``...
    """
    parameters = parameters_of(module)
    kinds = {p.name: p.kind for p in parameters if p.kind in NAMED}
    star = next((p.name for p in parameters if p.kind is Parameter.VAR_POSITIONAL), None)
    open_ = any(p.kind is Parameter.VAR_KEYWORD for p in parameters)
    elements = [
        n
        for n in in_order(module, names)
        if n not in kinds and star and (not open_ or _number(n, star) is not None)
    ]
    by_place = [p for p in parameters if p.kind in BY_PLACE]
    given = [p.name in names for p in by_place]
    run = given.index(False) if False in given else len(given)
    last = (
        max(
            (i for i, p in enumerate(by_place) if p.name in names and p.kind is Parameter.POSITIONAL_ONLY),
            default=-1,
        )
        + 1
    )
    run = len(by_place) if elements else max(run, last)
    places = [p.name if p.name in names else Default(p.default) for p in by_place[:run]]
    lacking = next(
        (i for i, p in enumerate(by_place[:run]) if p.name not in names and p.default is Parameter.empty),
        None,
    )
    if lacking is not None:  # the forward itself says what it lacks
        places, elements = places[:lacking], []
    return Call((*places, *elements), tuple(n for n in names if n not in places and n not in elements))


def _number(name: str, star: str | None) -> int | None:
    """The place among ``*args`` that a name says, ``args_0`` being the first; None if it says none."""
    number = name.removeprefix(f"{star}_") if star else ""
    return int(number) if number != name and number.isdecimal() else None


def starred(module: nn.Module, count: int) -> list[str]:
    """Return names for *count* values given by place.

    They are the forward's own, then ``args_0``... for those that its ``*args`` takes.
    """
    parameters = parameters_of(module)
    names = [p.name for p in parameters if p.kind in NAMED]
    star = next((p.name for p in parameters if p.kind is Parameter.VAR_POSITIONAL), None)
    if star is None:
        return names
    by_place = [p.name for p in parameters if p.kind in BY_PLACE]
    return [*by_place, *(f"{star}_{i}" for i in range(count - len(by_place)))]
