"""How many parameters a PyTorch source has, also if freezing or packing made constants of them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from mnnprep.deps import require

if TYPE_CHECKING:
    from types import ModuleType

    import torch
    from torch import nn


def parameter_count(module: nn.Module) -> int:
    """Return the elements of the module's parameters, each counted once.

    If the module keeps none (frozen or packed), count those of the floating and quantized tensors in its
    attributes and in its graph's constants, buffers left out.
    """
    torch = require("torch")
    if total := sum(int(p.numel()) for p in module.parameters()):
        return total
    kept = {id(b) for b in module.buffers()}
    found = {
        t.data_ptr() or id(t): int(t.numel())
        for t in _tensors(torch, module)
        if id(t) not in kept and t.dim()
    }
    return sum(found.values())


def _tensors(torch: ModuleType, module: nn.Module) -> Iterator[torch.Tensor]:
    if isinstance(module, torch.jit.ScriptModule):
        from mnnprep.formats.torch.net import script_nodes

        for node in script_nodes(module.inlined_graph):
            if node.kind() == "prim::Constant" and node.hasAttribute("value") and node.kindOf("value") == "t":
                tensor = node.t("value")
                if tensor.is_floating_point() or tensor.is_quantized:
                    yield tensor
    for part in module.modules():
        packed = getattr(part, "_packed_params", None)
        for make in ("_weight_bias", "unpack"):
            if callable(unpack := getattr(packed, make, None)):
                yield from (t for t in unpack() if isinstance(t, torch.Tensor))
                break
