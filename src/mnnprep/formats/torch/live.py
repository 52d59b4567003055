"""A live module, taken as it stands in the user's process and left exactly as it was.

What is exported is a copy of its structure on the CPU: parameters already there are shared (nothing
writes to them), others are brought over, shards are gathered; buffers are cloned, since a forward may
write to them.  The wrappers of distributed training are taken off the copy.
"""

from __future__ import annotations

import copy
import io
import random
import types
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from mnnprep.deps import require
from mnnprep.errors import RefusedError, UsageError
from mnnprep.formats.torch.calling import unwrapped
from mnnprep.formats.torch.load import LIVE
from mnnprep.weights.live import grouped, process_rank, whole

if TYPE_CHECKING:
    import torch
    from torch import nn


@contextmanager
def adopted(module: nn.Module, example: object) -> Iterator[tuple[str, list[str]] | None]:
    """Take *module* for the block.

    Gives the key it is loaded by and the user's top-level modules it comes from.

    Gives None on every rank but 0 of a running process group.  Afterwards the random states, the
    number of threads, the default dtype and the gradient mode are what they were.

    Raises:
        UsageError: the object is not a module.
        RefusedError: the module has tensors without values.
    """
    torch = require("torch")
    if not isinstance(module, torch.nn.Module):
        raise UsageError(
            "the source is neither a path nor a torch.nn.Module",
            seen=type(module).__name__,
            next="give a path, a factory or a module",
        )
    meta = [n for n, t in [*module.named_parameters(), *module.named_buffers()] if t.is_meta]
    if meta:
        raise RefusedError(
            "the module has tensors without values (on the meta device)",
            seen=", ".join(meta[:5]),
            next="load its weights, or give a factory and weights=",
        )
    key = f"live-{id(module):x}"
    with _global_state():
        plain = plain_copy(module)
        if process_rank():
            yield None
            return
        LIVE[key] = (plain, example)
        try:
            top = {type(m).__module__.partition(".")[0] for m in plain.modules()} - {
                "torch",
                "__main__",
                "builtins",
            }
            yield key, sorted(top)
        finally:
            del LIVE[key]


@contextmanager
def _global_state() -> Iterator[None]:
    """Restore what exporting changes in the process."""
    torch = require("torch")
    states = torch.random.get_rng_state(), np.random.get_state(), random.getstate()
    devices = (
        {i: torch.cuda.get_rng_state(i) for i in range(torch.cuda.device_count())}
        if torch.cuda.is_initialized()
        else {}
    )
    threads, dtype, gradients = torch.get_num_threads(), torch.get_default_dtype(), torch.is_grad_enabled()
    try:
        yield
    finally:
        torch.set_grad_enabled(gradients)
        torch.set_default_dtype(dtype)
        torch.set_num_threads(threads)
        torch.random.set_rng_state(states[0])
        np.random.set_state(states[1])
        random.setstate(states[2])
        for index, state in devices.items():
            torch.cuda.set_rng_state(state, index)


def plain_copy(module: nn.Module) -> nn.Module:
    """*module*'s structure with whole tensors on the CPU; the original is only read.

    If its parameters are shards in a process group this is a collective call: every rank must make it.
    """
    torch = require("torch")
    if isinstance(module, torch.jit.ScriptModule):
        buffer = io.BytesIO()
        torch.jit.save(module, buffer)
        buffer.seek(0)
        copied: nn.Module = torch.jit.load(buffer, map_location="cpu")
        return copied
    with _whole_parameters(module), torch.no_grad():
        memo: dict[int, object] = {}
        for submodule in module.modules():
            for parameter in submodule._parameters.values():
                if parameter is not None and id(parameter) not in memo:
                    memo[id(parameter)] = torch.nn.Parameter(
                        _on_cpu(parameter), requires_grad=parameter.requires_grad
                    )
            for tensor in submodule._buffers.values():
                if tensor is not None and id(tensor) not in memo:
                    memo[id(tensor)] = _on_cpu(tensor).clone()
        return _copy_structure(module, memo)


@contextmanager
def _whole_parameters(module: nn.Module) -> Iterator[None]:
    """Make the parameters of FullyShardedDataParallel wrappers whole within the block.

    It is for torch.distributed.fsdp, first version.
    """
    with ExitStack() as stack:
        if grouped():
            from torch.distributed.fsdp import FullyShardedDataParallel

            if any(isinstance(m, FullyShardedDataParallel) for m in module.modules()):
                stack.enter_context(FullyShardedDataParallel.summon_full_params(module, writeback=False))
                yield
                return
        yield


def _on_cpu(tensor: torch.Tensor) -> torch.Tensor:
    """The whole tensor on the CPU, out of autograd: a DTensor's shards are gathered (a collective call)."""
    gathered: torch.Tensor = whole(tensor.detach())
    return gathered.clone() if grouped() and not hasattr(tensor, "full_tensor") else gathered


def _copy_structure(module: nn.Module, memo: dict[int, object]) -> nn.Module:
    """Copy every submodule by its attributes, tensors taken from *memo*; what can't be copied is shared."""
    torch = require("torch")
    submodules = [m for m in module.modules() if not isinstance(m, torch.fx.GraphModule)]
    bare = {id(m): unwrapped(m) for m in submodules}
    for submodule in submodules:
        if bare[id(submodule)] is submodule:
            memo[id(submodule)] = object.__new__(_own_class(submodule))
    for submodule in submodules:
        if bare[id(submodule)] is not submodule:
            memo[id(submodule)] = memo[id(bare[id(submodule)])]
    for submodule in submodules:
        if bare[id(submodule)] is submodule:
            attributes = {name: _copied(value, memo) for name, value in vars(submodule).items()}
            for name in ("_forward_pre_hooks", "_forward_hooks", "_backward_hooks", "_backward_pre_hooks"):
                _drop_distributed_hooks(attributes.get(name), vars(submodule).get(name))
            memo[id(submodule)].__dict__ = attributes
    found = memo.get(id(module))
    return cast("nn.Module", found) if found is not None else copy.deepcopy(module, memo)


def _own_class(module: nn.Module) -> type:
    """The module's class without what fully_shard mixed into it (torch.distributed.fsdp, second version)."""
    cls = type(module)
    mixed = [base for base in cls.__mro__ if base.__module__.startswith("torch.distributed")]
    return next((base for base in cls.__bases__ if base not in mixed), cls) if mixed else cls


def _copied(value: object, memo: dict[int, object]) -> object:
    try:
        return copy.deepcopy(value, memo)
    except Exception:  # - locks, process groups, handles: the copy may share them
        if isinstance(value, dict):
            return type(value)((key, _copied(item, memo)) for key, item in value.items())
        return value


def _drop_distributed_hooks(hooks: Any, originals: Any) -> None:
    """Take out the hooks by which sharded modules gather themselves."""
    for number, hook in list((originals or {}).items()):
        owner = hook.__self__ if isinstance(hook, types.MethodType) else hook
        if type(owner).__module__.startswith("torch.distributed") or getattr(
            owner, "__module__", ""
        ).startswith("torch.distributed"):
            with suppress(KeyError):
                del hooks[number]
