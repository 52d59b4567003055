"""A live module's state dict as plans: shards of a running process group are gathered one tensor at a time.

Rank 0 writes and says which tensor comes next; the other ranks take part in gathering it and keep nothing.
So no rank ever holds more than its shards and one whole tensor.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
import numpy.typing as npt

from mnnprep import deps
from mnnprep.errors import RefusedError, UsageError
from mnnprep.weights import dtypes
from mnnprep.weights.plan import RAW, Made

if TYPE_CHECKING:
    from torch import nn

LiveTensor: TypeAlias = Any  # a torch.Tensor, a DTensor or a ShardedTensor: they share no class
END = -1


def process_rank() -> int:
    """This process's rank; 0 without a process group."""
    return int(deps.require("torch").distributed.get_rank()) if grouped() else 0


def state_of(module: nn.Module) -> dict[str, LiveTensor]:
    """Return the state dict with shards as they are; every rank must call this.

    Raises:
        UsageError: the object is not a torch.nn.Module.
        RefusedError: it has tensors without values.
    """
    torch = deps.require("torch")
    if not isinstance(module, torch.nn.Module):
        raise UsageError(
            "this is neither a path nor a torch.nn.Module",
            seen=type(module).__name__,
            next="give a checkpoint or a live module",
        )
    from torch.distributed.checkpoint.state_dict import get_model_state_dict

    state = get_model_state_dict(module) if grouped() else module.state_dict()
    tensors: dict[str, LiveTensor] = {name: value for name, value in state.items() if _is_tensor(value)}
    meta = [name for name, value in tensors.items() if getattr(value, "is_meta", False)]
    if meta:
        raise RefusedError(
            "the module has tensors without values (on the meta device)",
            seen=", ".join(meta[:10]),
            next="load its weights first",
        )
    return tensors


def grouped() -> bool:
    """Whether a process group is running."""
    distributed = deps.require("torch").distributed
    return bool(distributed.is_available() and distributed.is_initialized())


def _is_tensor(value: object) -> bool:
    return isinstance(value, deps.require("torch").Tensor) or type(value).__name__ == "ShardedTensor"


@contextmanager
def conducted(state: dict[str, LiveTensor]) -> Iterator[dict[str, Made]]:
    """On rank 0: the tensors as plans, for as long as the other ranks are in :func:`take_part`."""
    torch = deps.require("torch")
    names = list(state)
    many = grouped() and torch.distributed.get_world_size() > 1

    def gatherer(index: int) -> Callable[[], npt.NDArray[Any]]:
        def gather() -> npt.NDArray[Any]:
            value = state[names[index]]
            if many and _is_shard(value):
                _say(index)
            return _raw(whole(value))

        return gather

    plans = {}
    for index, (name, value) in enumerate(state.items()):
        dtype = str(value.dtype).removeprefix("torch.")
        if not dtypes.known(dtype):
            raise RefusedError(
                "a tensor of the module has a type that can't be written",
                seen=f"{name}: {dtype}",
                next="convert it first",
            )
        plans[name] = Made(dtype, tuple(value.size()), (), make=gatherer(index), same=_memory(value))
    try:
        yield plans
    finally:
        if many:
            _say(END)


def take_part(state: dict[str, LiveTensor]) -> None:
    """On every other rank: gather what rank 0 asks for, until it is done."""
    values = list(state.values())
    while (index := _hear()) != END:
        whole(values[index])


def _say(index: int) -> None:
    torch = deps.require("torch")
    torch.distributed.broadcast_object_list([index], src=0)


def _hear() -> int:
    message = [END]
    deps.require("torch").distributed.broadcast_object_list(message, src=0)
    return message[0]


def _is_shard(value: object) -> bool:
    return type(value).__name__ in ("DTensor", "ShardedTensor")


def whole(value: LiveTensor) -> LiveTensor:
    """The whole tensor on the CPU, on rank 0; the others take part and get nothing that counts."""
    torch = deps.require("torch")
    if type(value).__name__ == "ShardedTensor":
        out = torch.empty(tuple(value.size()), dtype=value.dtype) if process_rank() == 0 else None
        value.gather(0, out)
        return out
    if type(value).__name__ == "DTensor":
        value = value.full_tensor()
    return value.detach().cpu()


def _raw(value: LiveTensor) -> npt.NDArray[Any]:
    torch = deps.require("torch")
    flat = value.resolve_conj().resolve_neg().contiguous().reshape(-1)
    array: npt.NDArray[Any] = flat.view(torch.uint8).numpy().view(np.dtype(RAW[value.element_size()]))
    return array


def _memory(value: LiveTensor) -> object:
    """The same for tied tensors."""
    local: LiveTensor = getattr(value, "_local_tensor", value)
    if type(value).__name__ == "ShardedTensor" or not local.numel():
        return id(value)
    return (local.untyped_storage().data_ptr(), local.storage_offset(), tuple(local.stride()))
