"""A PyTorch module in float64, for its noise floor."""

from __future__ import annotations

import copy
from typing import Any

from mnnprep.deps import require


def in_float64(module: Any) -> Any:
    """A copy of *module* in float64; no floating tensor of it is copied as it is first."""
    torch = require("torch")
    memo: dict[int, Any] = {}
    if isinstance(module, torch.jit.ScriptModule):  # gives other objects for its tensors each time
        return copy.deepcopy(module).double()
    for tensor in (*module.parameters(), *module.buffers()):
        if tensor.is_floating_point():
            wide = tensor.detach().double()
            memo[id(tensor)] = (
                torch.nn.Parameter(wide, tensor.requires_grad)
                if isinstance(tensor, torch.nn.Parameter)
                else wide
            )
    return copy.deepcopy(module, memo).double()


def quick_depthwise() -> Any:
    """Within, depthwise convolutions are computed tap by tap: PyTorch has no kernel for them in float64 and
    convolves one channel at a time.
    """
    torch = require("torch")
    functional = torch.nn.functional

    class Mode(torch.overrides.TorchFunctionMode):  # type: ignore[misc,name-defined]
        def __torch_function__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            if function is functional.conv2d and (made := _depthwise(*args, **(kwargs or {}))) is not None:
                return made
            return function(*args, **(kwargs or {}))

    return Mode()


def _depthwise(
    input: Any,
    weight: Any,
    bias: Any = None,
    stride: Any = 1,
    padding: Any = 0,
    dilation: Any = 1,
    groups: int = 1,
) -> Any:
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


def _pair(value: Any) -> tuple[int, int]:
    return (
        (value, value)
        if isinstance(value, int)
        else tuple(value)
        if len(value) == 2
        else (value[0], value[0])
    )
