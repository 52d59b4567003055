"""Sums into places that indices name, in the one form that the TorchScript-based exporter gets right.

Measured with torch 2.13: ``index_add`` and ``index_put`` that accumulates are written as a scatter onto
zeros, so that of two values for one place one is lost; so is ``scatter_add`` below opset 16, where ONNX has
no scatter that adds.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from mnnprep.deps import require
from mnnprep.formats.torch.types import Function

if TYPE_CHECKING:
    from torch import Tensor

ADDING = 16  # the opset from which ScatterElements adds


class UnsupportedAtOpset(Exception):
    """An operator of the model has no form at this opset.

    ``needed`` is the opset that has one (0: unknown).
    """

    def __init__(self, message: str, needed: int) -> None:
        super().__init__(message)
        self.needed = needed


def adding_forms(opset: int) -> dict[Function, Function]:
    """The replacements, by the functions that torch hands to a mode, for an export to *opset*."""
    torch = require("torch")
    original = torch.Tensor.scatter_add

    def scatter_add(input: Tensor, dim: int, index: Tensor, src: Tensor) -> Tensor:
        if opset < ADDING:
            raise UnsupportedAtOpset(f"a scatter that adds needs opset {ADDING}", ADDING)
        added: Tensor = original(input, dim, index, src)
        return added

    def index_add(input: Tensor, dim: int, index: Tensor, source: Tensor, *, alpha: float = 1) -> Tensor:
        axis = dim % input.dim()
        shape = [-1 if place == axis else 1 for place in range(source.dim())]
        values = source if alpha == 1 else source * alpha
        return scatter_add(input, axis, index.long().reshape(shape).expand(source.shape), values)

    def index_put(
        input: Tensor, indices: Sequence[Tensor | None], values: Tensor, accumulate: bool = False
    ) -> Tensor:
        given = [index for index in indices if index is not None]
        whole = all(index.dtype in (torch.int64, torch.int32) for index in given)
        if not accumulate or not whole or len(given) != len(indices):
            return input.index_put(tuple(indices), values, accumulate)
        count, place = len(given), torch.zeros((), dtype=torch.int64)
        for index, size in zip(given, input.shape[:count], strict=True):  # the place along all axes at once
            place = place * size + torch.where(index < 0, index + size, index)
        rest = list(input.shape[count:])
        rows = values.expand([*place.shape, *rest]).reshape([-1, *rest])
        return index_add(input.reshape([-1, *rest]), 0, place.reshape(-1), rows).reshape(input.shape)

    made: dict[str, Function] = {"scatter_add": scatter_add, "index_add": index_add, "index_put": index_put}
    forms: dict[Function, Function] = {}
    for name, form in made.items():
        forms |= {getattr(torch, name): form, getattr(torch.Tensor, name): form}
        forms[getattr(torch.Tensor, name + "_")] = _in_place(form)
    return forms


def _in_place(form: Function) -> Callable[..., Tensor]:
    def changed(input: Tensor, *args: object, **kwargs: object) -> Tensor:
        return input.copy_(form(input, *args, **kwargs))

    return changed
