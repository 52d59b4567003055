"""A PyTorch module in float64, for its noise floor."""

from __future__ import annotations

import copy
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Any

from mnnprep.deps import require
from mnnprep.formats.torch.types import Arguments, Function, Keywords, Types

if TYPE_CHECKING:
    import torch
    from torch import nn


def in_float64(module: nn.Module) -> nn.Module:
    """A copy of *module* in float64; no floating tensor of it is copied as it is first."""
    torch = require("torch")
    memo: dict[int, Any] = {}
    if isinstance(module, torch.jit.ScriptModule):  # gives other objects for its tensors each time
        doubled: nn.Module = copy.deepcopy(module).double()
        return doubled
    for tensor in (*module.parameters(), *module.buffers()):
        if tensor.is_floating_point():
            wide = tensor.detach().double()
            memo[id(tensor)] = (
                torch.nn.Parameter(wide, tensor.requires_grad)
                if isinstance(tensor, torch.nn.Parameter)
                else wide
            )
    return copy.deepcopy(module, memo).double()


def quick_depthwise() -> AbstractContextManager[object]:
    """Compute depthwise convolutions tap by tap within the block.

    PyTorch has no kernel for them in float64 and convolves one channel at a time.
    """
    torch = require("torch")
    functional = torch.nn.functional

    class Mode(torch.overrides.TorchFunctionMode):  # type: ignore[misc,name-defined]
        def __torch_function__(
            self, function: Function, types: Types, args: Arguments = (), kwargs: Keywords | None = None
        ) -> object:
            if function is functional.conv2d and (made := _depthwise(*args, **(kwargs or {}))) is not None:
                return made
            return function(*args, **(kwargs or {}))

    return Mode()


def _depthwise(
    input: torch.Tensor,
    weight: torch.Tensor,
    bias: torch.Tensor | None = None,
    stride: int | tuple[int, ...] = 1,
    padding: str | int | tuple[int, ...] = 0,
    dilation: int | tuple[int, ...] = 1,
    groups: int = 1,
) -> torch.Tensor | None:
    """The convolution where it is depthwise, of a batch, and padded by numbers; else None."""
    if groups == 1 or weight.shape[:2] != (groups, 1) or input.dim() != 4 or isinstance(padding, str):
        return None
    functional = require("torch").nn.functional
    (down, right), (high, wide), (over, across) = map(_pair, (stride, padding, dilation))
    padded = functional.pad(input, (wide, wide, high, high))
    height, width = weight.shape[2:]
    rows = (padded.shape[2] - over * (height - 1) - 1) // down + 1
    columns = (padded.shape[3] - across * (width - 1) - 1) // right + 1
    if rows < 1 or columns < 1:
        return None
    made = input.new_zeros(input.shape[0], groups, rows, columns)
    for i in range(height):
        for j in range(width):
            taken = padded[:, :, i * over :, j * across :][
                :, :, : down * (rows - 1) + 1 : down, : right * (columns - 1) + 1 : right
            ]
            made.addcmul_(taken, weight[:, 0, i, j, None, None])
    return made if bias is None else made + bias[:, None, None]


def _pair(value: int | tuple[int, ...]) -> tuple[int, int]:
    first, *rest = (value,) if isinstance(value, int) else value
    return first, (rest or [first])[0]
