"""PyTorch nets with a planted fault.

``planted`` is the factory: ``mnnprep prepare evaluation/nets/faults_twins.py:planted --factory-arg model=cnn
--factory-arg fault=swap_layers``. Such a net computes what the right one does, except while it is exported
(as real models do that ask ``torch.jit.is_tracing()``): only a comparison with the source can see that.
Those of ``INHERENT`` need no such switch: their own code does not survive an export.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from evaluation.nets.faults_nets import IMAGE, Attention, Body, One, Two, _conv, build, example

# --- faults that show while the net is exported ----------------------------------------------------------


class After(nn.Module):
    """A net, and what is done to its outputs."""

    def __init__(self, net: nn.Module, change: Callable[[Any], Any]) -> None:
        super().__init__()
        self.net, self.change = net, change

    def forward(self, *inputs: Tensor) -> Any:
        return self.change(self.net(*inputs))


class Before(After):
    def forward(self, *inputs: Tensor) -> Any:
        return self.net(*(self.change(i) for i in inputs))


def _each(change: Callable[[Tensor], Tensor]) -> Callable[[Any], Any]:
    def apply(value: Any) -> Any:
        if isinstance(value, Tensor):
            return change(value)
        if isinstance(value, dict):
            return {n: change(v) for n, v in value.items()}
        return type(value)(change(v) for v in value)

    return apply


def _reordered(value: Any) -> Any:
    if isinstance(value, dict):
        names = list(value)
        return dict(zip(names, [value[n] for n in [*names[:-2], names[-1], names[-2]]], strict=True))
    return tuple(reversed(value))


def _largest(net: nn.Module, number: int = 0) -> Tensor:
    weights = sorted(net.parameters(), key=lambda p: -p.numel())
    return weights[number % len(weights)]


def _scaled_weight(net: nn.Module, number: int = 0) -> nn.Module:
    with torch.no_grad():
        _largest(net, number).mul_(1.01)
    return net


def _swapped(net: nn.Module) -> nn.Module:
    named = list(net.parameters())
    for i, a in enumerate(named):
        for b in named[i + 1 :]:
            if a.shape == b.shape and a.dim() > 1 and not torch.equal(a, b):
                a.data, b.data = b.data.clone(), a.data.clone()
                return net
    raise LookupError("no two weights of one shape")


def _replaced(net: nn.Module, kind: type[nn.Module], make: Callable[[Any], nn.Module]) -> nn.Module:
    """The first module of that kind replaced. Raises LookupError where there is none."""
    for name, module in net.named_modules():
        if isinstance(module, kind) and name:
            parent, _, last = name.rpartition(".")
            setattr(net.get_submodule(parent), last, make(module))
            return net
    raise LookupError(f"no {kind.__name__}")


class BatchStatistics(nn.Module):
    """A batch norm whose eval was never called, and can't be."""

    def __init__(self, norm: Any) -> None:
        super().__init__()
        self.norm = norm

    def forward(self, x: Tensor) -> Tensor:
        n = self.norm
        return F.batch_norm(
            x, n.running_mean.clone(), n.running_var.clone(), n.weight, n.bias, True, 0.1, n.eps
        )


class AlwaysDropout(nn.Module):
    def __init__(self, before: nn.Module) -> None:
        super().__init__()
        self.before = before

    def forward(self, x: Tensor) -> Tensor:
        return F.dropout(self.before(x), 0.2, training=True)


def _attribute(kind: type[nn.Module], name: str, value: Any) -> Callable[[nn.Module], nn.Module]:
    def change(net: nn.Module) -> nn.Module:
        for module in net.modules():
            if isinstance(module, kind):
                setattr(module, name, value)
                return net
        raise LookupError(f"no {kind.__name__}")

    return change


def _without_bias(net: nn.Module) -> nn.Module:
    with torch.no_grad():
        for name, parameter in net.named_parameters():
            if name.endswith("bias"):
                parameter.zero_()
                return net
    raise LookupError("no bias")


def _norm_swapped(net: nn.Module) -> nn.Module:
    for module in net.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            module.weight.data, module.bias.data = module.bias.data.clone(), module.weight.data.clone()
            return net
    raise LookupError("no batch norm")


TWINS: dict[
    str, tuple[str, Callable[[nn.Module], nn.Module]]
] = {  # the fault's name: its kind, how the net's twin gets it
    "weight_1": ("weight_1_percent", _scaled_weight),
    "weight_2": ("weight_1_percent", lambda n: _scaled_weight(n, 1)),
    "weight_last": ("weight_1_percent", lambda n: _scaled_weight(n, -1)),
    "swap_layers": ("weights_swapped", _swapped),
    "norm_affine": ("weights_swapped", _norm_swapped),
    "no_bias": ("constant_changed", _without_bias),
    "bn_training": (
        "eval_not_called",
        lambda n: _replaced(n, nn.modules.batchnorm._BatchNorm, BatchStatistics),
    ),
    "dropout": ("dropout_functional", lambda n: _replaced(n, nn.ReLU, AlwaysDropout)),
    "dropout_linear": ("dropout_functional", lambda n: _replaced(n, nn.Linear, AlwaysDropout)),
    "gelu": ("activation_changed", lambda n: _replaced(n, nn.GELU, lambda _: nn.GELU("tanh"))),
    "relu_gelu": ("activation_changed", lambda n: _replaced(n, nn.ReLU, lambda _: nn.GELU())),
    "relu6_relu": ("activation_changed", lambda n: _replaced(n, nn.ReLU6, lambda _: nn.ReLU())),
    "max_average": (
        "pooling_changed",
        lambda n: _replaced(n, nn.MaxPool2d, lambda m: nn.AvgPool2d(m.kernel_size, m.stride, m.padding)),
    ),
    "count_pad": ("pooling_changed", _attribute(nn.AvgPool2d, "count_include_pad", False)),
    "padding_mode": ("attribute_changed", _attribute(nn.Conv2d, "padding_mode", "circular")),
    "norm_eps": ("attribute_changed", _attribute(nn.LayerNorm, "eps", 0.1)),
    "slope": ("attribute_changed", _attribute(nn.LeakyReLU, "negative_slope", 0.2)),
    "corners": ("attribute_changed", _attribute(nn.Upsample, "align_corners", True)),
    "not_causal": ("branch_baked", _attribute(Attention, "causal", False)),
    "swapped": ("output_swapped", lambda n: After(n, _reordered)),
    "transposed": (
        "output_transposed",
        lambda n: After(
            n, _each(lambda t: t.transpose(-1, -2) if t.shape[-1] == t.shape[-2] else t.flip(-1))
        ),
    ),
    "emptied": ("output_emptied", lambda n: After(n, _each(lambda t: t[:0]))),
    "dropped": (
        "output_dropped",
        lambda n: After(n, lambda v: dict(list(v.items())[:-1]) if isinstance(v, dict) else tuple(v)[:-1]),
    ),
    "zeroed": ("constant_folded", lambda n: After(n, _each(lambda t: t * 0))),
    "half": ("float16_overflow", lambda n: After(n, _each(lambda t: (t * 3e5).half().float() / 3e5))),
    "axis": ("axis_changed", lambda n: After(n, _each(lambda t: t.roll(1, -1)))),
    "last_axis": ("axis_changed", lambda n: Before(n, lambda t: t.flip(-1))),
}


# --- faults that need no switch ----------------------------------------------------------------------------


def _item(m: Any, x: Tensor) -> Tensor:
    return m.a(x) / (1 + x.abs().mean().item())


def _numpy(m: Any, x: Tensor) -> Tensor:
    return m.a(x) + torch.from_numpy(x.detach().numpy().mean(axis=(0, 2, 3), keepdims=True)[:, :1].copy())


def _branch(m: Any, x: Tensor) -> Tensor:
    return m.a(x) * 2 if bool(x.mean() > 0) else m.a(x) - 1


def _rare_branch(m: Any, x: Tensor) -> Tensor:
    return m.a(x).clamp(-1, 1) if bool(x.abs().max() > 12) else m.a(x)


def _counting(m: Any, x: Tensor) -> Tensor:
    m.count = getattr(m, "count", 0) + 1
    return m.a(x) * (1 + 0.01 * m.count)


def _first_call(m: Any, x: Tensor) -> Tensor:
    if not hasattr(m, "center"):
        m.center = x.mean().detach()
    return m.a(x - m.center)


def _sampled(m: Any, x: Tensor) -> Tensor:
    y = m.a(x)
    return y + 0.1 * torch.randn_like(y)


def _dropped_out(m: Any, x: Tensor) -> Tensor:
    return F.dropout(m.a(x), 0.1)


def _batch_scaled(m: Any, x: Tensor) -> Tensor:
    return F.batch_norm(m.a(x), None, None, training=True)


def _loop(m: Any, x: Tensor) -> Tensor:
    y = m.a(x)
    for _ in range(int(x.sum().abs().item()) % 3 + 1):
        y = torch.tanh(y) * 1.5
    return y


INHERENT: dict[str, tuple[str, Callable[[Any, Tensor], Any]]] = {
    "item": ("constant_folded", _item),
    "numpy": ("constant_folded", _numpy),
    "branch": ("branch_baked", _branch),
    "rare_branch": ("branch_baked", _rare_branch),
    "loop": ("branch_baked", _loop),
    "counting": ("state_between_calls", _counting),
    "first_call": ("state_between_calls", _first_call),
    "sampled": ("random", _sampled),
    "dropout_default": ("dropout_functional", _dropped_out),
    "batch_statistics": ("eval_not_called", _batch_scaled),
}


def planted(model: str, fault: str) -> tuple[nn.Module, tuple[Tensor, ...]]:
    """*model* with *fault*. Raises LookupError where it has no place for it."""
    if fault in INHERENT:
        shape, net = IMAGE, Body(INHERENT[fault][1], a=_conv(3, 6))
    else:
        shape, net = build(model)
        twin = TWINS[fault][1](copy.deepcopy(net))
        return (One if len(shape.inputs) == 1 else Two)(net, twin), example(shape)
    return One(net.eval()), example(shape)
