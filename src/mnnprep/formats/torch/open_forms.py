"""Calls of torch that the TorchScript-based exporter translates at fixed sizes only, for any size.

Measured with torch 2.13: adaptive pooling and ``Tensor.unfold`` of an open axis are refused ("input size not
accessible"), and so is adaptive pooling to a size that does not divide a fixed one.

* Adaptive pooling to n cells: cell j of an axis of L covers floor(j L / n) to ceil((j + 1) L / n), by the
  documentation of torch.nn.AdaptiveAvgPool1d. An average is a product with the matrix of the cells, a maximum
  one over the cells' elements, axis by axis.
* ``unfold(axis, size, step)``: a gather of the windows' indices.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from mnnprep.deps import require
from mnnprep.formats.torch.types import Function

if TYPE_CHECKING:
    from torch import Tensor

Size = int | Sequence[int | None] | None


def open_forms(*, open_sizes: bool) -> dict[Function, Function]:
    """The replacements, by the functions that torch hands to a mode.

    With *open_sizes* any size may be another one later; else they are those of the call.
    """
    torch = require("torch")
    functional = torch.nn.functional
    forms: dict[Function, Function] = {torch.Tensor.unfold: _unfolded} if open_sizes else {}
    for rank in (1, 2, 3):
        average = getattr(functional, f"adaptive_avg_pool{rank}d")
        largest = getattr(functional, f"adaptive_max_pool{rank}d")
        forms[average] = _adaptive(average, rank, _average, open_sizes=open_sizes)
        forms[largest] = _adaptive(largest, rank, _largest, open_sizes=open_sizes)
    return forms


def _adaptive(
    original: Function, rank: int, pooled: Callable[[Tensor, int, int], Tensor], *, open_sizes: bool
) -> Callable[..., Any]:
    """Adaptive pooling over the last *rank* axes, *pooled* axis by axis if the exporter would refuse it."""

    def pool(input: Tensor, output_size: Size, *args: Any, **kwargs: Any) -> Any:  # noqa: ANN401 - as torch
        sizes = list(output_size) if isinstance(output_size, Sequence) else [output_size] * rank
        if open_sizes:
            plain = all(size == 1 for size in sizes)
        else:
            now = [int(size) for size in input.shape[-rank:]]
            sizes = [None if size == have else size for size, have in zip(sizes, now, strict=True)]
            plain = all(size is None or have % size == 0 for size, have in zip(sizes, now, strict=True))
        if plain or args or any(kwargs.values()):
            return original(input, output_size, *args, **kwargs)
        for axis, cells in enumerate(sizes):
            if cells is not None:
                input = pooled(input, axis - rank, cells)
        return input

    return pool


def _cells(input: Tensor, axis: int, cells: int) -> Tensor:
    """For each of the *cells* the elements of *axis* that it covers; booleans [cells, length]."""
    torch = require("torch")
    length = input.shape[axis]
    place = torch.arange(length, device=input.device)
    cell = torch.arange(cells, device=input.device).unsqueeze(1)
    # i >= floor(j L / n) is (i + 1) n > j L, and i < ceil((j + 1) L / n) is i n < (j + 1) L
    covered: Tensor = ((place + 1) * cells > cell * length) & (place * cells < (cell + 1) * length)
    return covered


def _average(input: Tensor, axis: int, cells: int) -> Tensor:
    covered = _cells(input, axis, cells).to(input.dtype)
    weights = covered / covered.sum(1, keepdim=True)
    pooled: Tensor = (input.transpose(axis, -1) @ weights.t()).transpose(axis, -1)
    return pooled


def _largest(input: Tensor, axis: int, cells: int) -> Tensor:
    torch = require("torch")
    covered = _cells(input, axis, cells)
    each = input.transpose(axis, -1).unsqueeze(-2)
    lowest = torch.full((), torch.finfo(input.dtype).min, dtype=input.dtype, device=input.device)
    pooled: Tensor = torch.where(covered, each, lowest).amax(-1).transpose(axis, -1)
    return pooled


def _unfolded(input: Tensor, dimension: int, size: int, step: int) -> Tensor:
    """The windows of *size* along *dimension*, each *step* further, as a last axis."""
    torch = require("torch")
    axis = dimension % input.dim()
    first = torch.arange(0, input.shape[axis] - size + 1, step, device=input.device)
    within = torch.arange(size, device=input.device)
    index = (first.unsqueeze(1) + within).reshape(-1)
    taken = input.index_select(axis, index)
    shape = [*input.shape[:axis], -1, size, *input.shape[axis + 1 :]]
    windows: Tensor = taken.reshape(shape).movedim(axis + 1, -1)
    return windows
