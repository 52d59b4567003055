"""Calls of torch that look through windows, in forms that its TorchScript-based exporter translates rightly.

Measured with torch 2.13, pooling and circular padding without a batch: the channels are taken for a batch,
and the file does not run.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from mnnprep.deps import require
from mnnprep.formats.torch.types import Function

if TYPE_CHECKING:
    from torch import Tensor

POOLS = ("max_pool", "avg_pool", "lp_pool")


def window_forms() -> dict[Function, Function]:
    """The replacements, by the functions that torch hands to a mode."""
    functional = require("torch.nn.functional")
    forms: dict[Function, Function] = {functional.pad: _padded(functional.pad)}
    for axes in (1, 2, 3):
        for pool in POOLS:
            original = getattr(functional, f"{pool}{axes}d")
            forms[original] = _with_batch(original, axes)
    return forms


def _with_batch(original: Function, axes: int) -> Callable[..., object]:
    """*original* over *axes* axes, of which an input without a batch gets one for the time of the call."""

    def pool(input: Tensor, *args: Any, **kwargs: Any) -> object:  # noqa: ANN401 - as torch takes it
        if input.dim() != axes + 1:
            return original(input, *args, **kwargs)
        found = original(input.unsqueeze(0), *args, **kwargs)
        if isinstance(found, tuple):
            return tuple(part.squeeze(0) for part in found)
        return found.squeeze(0)

    return pool


def _padded(original: Function) -> Callable[..., object]:
    def pad(input: Tensor, pad: Sequence[int], mode: str = "constant", value: float | None = None) -> object:
        if mode == "circular" and input.dim() == len(pad) // 2 + 1:
            return original(input.unsqueeze(0), pad, mode, value).squeeze(0)
        return original(input, pad, mode, value)

    return pad
