"""Outputs as a flat, named, ordered set of tensors, and inputs by the forward's own parameter names."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

from mnnprep.errors import RefusedError, UsageError
from mnnprep.formats.torch.calling import starred

if TYPE_CHECKING:
    import torch
    from torch import nn

    Example = torch.Tensor | Sequence[object] | Mapping[str, object]


def flatten(value: object, taken: tuple[str, ...] = ()) -> dict[str, torch.Tensor]:
    """The tensors of a forward's result by name, in order.

    A lone tensor is ``output``; a tuple or list ``output_0``, ``output_1``...; a mapping, dataclass or
    named tuple has its own names; nesting joins names with a dot; None is left out.  A name among
    *taken* (the inputs') gets ``_output`` appended, since a graph can't use it twice.

    Raises:
        RefusedError: something in it is not a tensor.
    """
    import torch

    if isinstance(value, torch.Tensor):
        return {"output": value}
    flat: dict[str, torch.Tensor] = {}
    for name, tensor in _walk(
        value, "output" if isinstance(value, (tuple, list)) and not hasattr(value, "_fields") else "", "_"
    ):
        if not isinstance(tensor, torch.Tensor):
            raise RefusedError(
                f"the model returns something that is not a tensor, at {name or 'its top'}",
                seen=type(tensor).__name__,
                next=(
                    "return tensors only: wrap the model in a factory whose forward does (for a transformers"
                    " decoder, use_cache=False)"
                ),
            )
        flat[name if name not in taken else f"{name}_output"] = tensor
    if not flat:
        raise RefusedError(
            "the model returns no tensor", seen=type(value).__name__, next="return the outputs from forward"
        )
    return flat


def places(value: object, at: str) -> Iterator[str]:
    """Return the places of the tensors of a TorchScript result, as expressions on *at*.

    They come in the order of :func:`flatten`.
    """
    if isinstance(value, Mapping):
        for key, child in value.items():
            yield from places(child, f"{at}[{key!r}]")
    elif isinstance(value, (tuple, list)):
        for number, child in enumerate(value):
            yield from places(child, f"{at}[{number}]")
    elif value is not None:
        yield at


def holds(value: object, kinds: tuple[type, ...]) -> bool:
    """Whether *value* is of one of these *kinds*, or a container that holds one."""
    if isinstance(value, kinds):
        return True
    children = value.values() if isinstance(value, Mapping) else value
    return isinstance(children, Iterable) and not _is_tensor(value) and any(holds(v, kinds) for v in children)


def _is_tensor(value: object) -> bool:
    import torch

    return isinstance(value, (torch.Tensor, str))


def _walk(value: object, name: str, joint: str) -> Iterator[tuple[str, object]]:
    if value is None:
        return
    children: Iterable[tuple[object, object]]
    if isinstance(value, Mapping):
        children = value.items()
    elif isinstance(value, tuple) and hasattr(value, "_fields"):
        children = zip(value._fields, value, strict=True)
    elif isinstance(value, (tuple, list)):
        children = enumerate(value)
    elif dataclasses.is_dataclass(value):
        children = ((f.name, getattr(value, f.name)) for f in dataclasses.fields(value))
    else:
        yield name, value
        return
    for key, child in children:
        yield from _walk(child, f"{name}{joint}{key}" if name else str(key), ".")


def name_examples(example: Example, module: nn.Module) -> dict[str, torch.Tensor]:
    """Return a factory's example inputs by the names of *module*'s parameters.

    The factory gives a tensor, a tuple or a dict; None is not given.
    """
    import torch

    if isinstance(example, Mapping):
        values = dict(example)
    else:
        items = [example] if isinstance(example, torch.Tensor) else list(example)
        parameters = starred(module, len(items))
        if len(items) > len(parameters):
            raise UsageError(
                "the factory gives more example inputs than the forward takes",
                seen=f"{len(items)} for {', '.join(parameters)}",
                next="return one per parameter, or a dict by name",
            )
        values = dict(zip(parameters, items, strict=False))
    named: dict[str, torch.Tensor] = {}
    for name, value in values.items():
        if value is None:
            continue
        if not isinstance(value, torch.Tensor):
            raise UsageError(
                f"the example input {name} is not a tensor",
                seen=type(value).__name__,
                next=(
                    "give tensors; fix every other argument inside the factory (a wrapper module, or"
                    " functools.partial)"
                ),
            )
        named[name] = value
    return named
