"""Nets for faults that show for some values alone: small, with the structure of trained nets, and right.

Each has bounds, thresholds, tables, divisions, roundings or choices somewhere inside.  ``made`` is the
factory, in the form that ``mnnprep prepare evaluation/nets/value_nets.py:made --factory-arg model=relu6``
takes.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class Declared(NamedTuple):
    """What is declared of a net: names, dtypes and sizes of its inputs, and their values."""

    inputs: tuple[tuple[str, str, tuple[int, ...]], ...]
    ranges: dict[str, tuple[float, float]]


def _image(low: float, high: float, side: int = 16) -> Declared:
    return Declared((("x", "float32", (2, 3, side, side)),), {"x": (low, high)})


def _rows(width: int, *interval: float) -> Declared:
    return Declared((("x", "float32", (4, width)),), {"x": (interval[0], interval[1])} if interval else {})


def _text(vocabulary: int, length: int = 16) -> Declared:
    return Declared(
        (("ids", "int64", (2, length)), ("mask", "int64", (2, length))),
        {"ids": (0.0, vocabulary - 1.0), "mask": (0.0, 1.0)},
    )


class Body(nn.Module):
    """Layers, and a function of them and the input ``x``."""

    def __init__(self, call: Callable[..., Any], **layers: nn.Module) -> None:
        super().__init__()
        self.call = call
        for name, layer in layers.items():
            self.add_module(name, layer)

    def forward(self, x: Tensor) -> Any:
        return self.call(self, x)


class Text(Body):
    """The same of ``ids`` and ``mask``."""

    def forward(self, ids: Tensor, mask: Tensor) -> Any:  # type: ignore[override]
        return self.call(self, ids, mask)


def _conv(before: int, after: int, stride: int = 1) -> nn.Module:
    return nn.Sequential(nn.Conv2d(before, after, 3, stride, 1), nn.BatchNorm2d(after))


def _relu6() -> nn.Module:
    head = (nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(12, 5))
    return nn.Sequential(
        _conv(3, 8), nn.ReLU6(), _conv(8, 12, 2), nn.ReLU6(), _conv(12, 12, 2), nn.ReLU6(), *head
    )


def _mobile() -> nn.Module:
    def call(m: Any, x: Tensor) -> Tensor:
        y = F.hardswish(m.a(x))
        y = y * F.hardsigmoid(m.s(y.mean((2, 3), keepdim=True)))
        return m.c(F.hardswish(m.b(y)).mean((2, 3)))

    return Body(call, a=_conv(3, 8, 2), s=nn.Conv2d(8, 8, 1), b=_conv(8, 12, 2), c=nn.Linear(12, 4))


def _unet() -> nn.Module:
    def call(m: Any, x: Tensor) -> Tensor:
        down = F.leaky_relu(m.a(x), 0.1)
        deep = F.elu(m.b(down))
        up = F.interpolate(deep, scale_factor=2.0, mode="nearest")
        return torch.sigmoid(m.c(torch.cat([down, up], 1)))

    return Body(call, a=_conv(3, 6), b=_conv(6, 8, 2), c=nn.Conv2d(14, 2, 3, 1, 1))


def _perceptron() -> nn.Module:
    return nn.Sequential(
        nn.Linear(12, 24),
        nn.GELU(),
        nn.Linear(24, 24),
        nn.SiLU(),
        nn.Linear(24, 16),
        nn.Tanh(),
        nn.Linear(16, 4),
    )


def _encoder() -> nn.Module:
    def call(m: Any, ids: Tensor, mask: Tensor) -> Tensor:
        x = m.table(ids)
        hidden = (mask == 0)[:, None, :]
        scores = (m.q(x) @ m.k(x).transpose(1, 2)) / 4.0
        weights = torch.softmax(scores.masked_fill(hidden, -1e4), -1)
        x = m.norm(x + weights @ m.v(x))
        kept = mask[:, :, None].to(x.dtype)
        return m.out((x * kept).sum(1) / kept.sum(1).clamp(min=1.0))

    linear = {name: nn.Linear(16, 16) for name in "qkv"}
    return Text(call, table=nn.Embedding(400, 16), norm=nn.LayerNorm(16), out=nn.Linear(16, 3), **linear)


def _bag() -> nn.Module:
    def call(m: Any, ids: Tensor, mask: Tensor) -> Tensor:
        kept = mask[:, :, None].to(torch.float32)
        x = (m.table(ids) * kept).sum(1)
        return m.b(F.relu(m.a(x)))

    return Text(call, table=nn.Embedding(900, 8), a=nn.Linear(8, 16), b=nn.Linear(16, 3))


def _wave() -> nn.Module:
    return nn.Sequential(
        nn.Conv1d(2, 8, 5, 2, 2),
        nn.Softplus(),
        nn.Conv1d(8, 8, 5, 2, 2),
        nn.Tanh(),
        nn.AdaptiveAvgPool1d(1),
        nn.Flatten(),
        nn.Linear(8, 3),
    )


def _recurrent() -> nn.Module:
    def call(m: Any, x: Tensor) -> Tensor:
        steps, _ = m.a(x)
        return m.b(F.relu(steps[:, -1]))

    return Body(call, a=nn.LSTM(6, 10, batch_first=True), b=nn.Linear(10, 3))


def _variance() -> nn.Module:
    """A mean and a standard deviation, and what is normalized by them."""

    def call(m: Any, x: Tensor) -> tuple[Tensor, Tensor]:
        y = m.a(x)
        mean, logarithm = y.chunk(2, 1)
        deviation = torch.exp(0.5 * logarithm)
        return mean / (deviation + 1e-3), torch.log(deviation + 1.0) + torch.sqrt(mean.abs() + 1e-4)

    return Body(call, a=nn.Sequential(nn.Linear(10, 16), nn.ReLU(), nn.Linear(16, 8)))


def _detector() -> nn.Module:
    def call(m: Any, x: Tensor) -> tuple[Tensor, Tensor]:
        y = F.relu(m.a(x))
        scores = torch.sigmoid(4.0 * m.s(y))
        sizes = torch.exp(m.b(y).clamp(-4.0, 4.0))
        return torch.where(scores > 0.5, scores, torch.zeros_like(scores)), sizes

    return Body(call, a=_conv(3, 8, 2), s=nn.Conv2d(8, 2, 1), b=nn.Conv2d(8, 4, 1))


def _gate() -> nn.Module:
    """One of two answers, by the mean of what comes in."""

    def call(m: Any, x: Tensor) -> Tensor:
        bright = x.mean((1, 2, 3), keepdim=True)
        dark = torch.where(bright > 0.8, x * 0.5, x)
        return m.b(F.relu(m.a(torch.where(bright < 0.15, dark * 2.0 + 0.1, dark))).mean((2, 3)))

    return Body(call, a=_conv(3, 6, 2), b=nn.Linear(6, 3))


def _rounding() -> nn.Module:
    return Body(lambda m, x: m.a(torch.round(x) * 0.5 + torch.floor(x * 2.0)), a=nn.Linear(12, 5))


def _steps() -> nn.Module:
    """Positions folded into a period, as rotary and time embeddings do."""

    def call(m: Any, x: Tensor) -> Tensor:
        phase = torch.fmod(x, 24.0) / 24.0
        return m.a(torch.cat([torch.sin(6.28 * phase), torch.cos(6.28 * phase), phase], 1))

    return Body(call, a=nn.Linear(24, 4))


def _buckets() -> nn.Module:
    """Features of which each lies above or below some bounds."""

    def call(m: Any, x: Tensor) -> Tensor:
        above = [(x >= bound).to(x.dtype) for bound in (-1.5, 0.0, 0.75, 2.0)]
        inside = torch.where((x > -2.5) & (x < 2.5), x, torch.zeros_like(x))
        return m.a(torch.cat([*above, inside], 1))

    return Body(call, a=nn.Linear(40, 4))


def _powers() -> nn.Module:
    def call(m: Any, x: Tensor) -> Tensor:
        y = F.relu(m.a(x))
        return m.b(torch.pow(y, 1.5) + torch.pow(x[:, :8], 3.0) - torch.pow(y.clamp(max=5.0), 2.0))

    return Body(call, a=nn.Linear(10, 8), b=nn.Linear(8, 3))


def _choice() -> nn.Module:
    """The class and its score, of what comes in as it is, beside those of a layer."""

    def call(m: Any, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        return x.argmax(1), x.amax(1), m.a(F.softmax(x, 1))

    return Body(call, a=nn.Linear(9, 4))


NETS: dict[str, tuple[Declared, Callable[[], nn.Module]]] = {
    "relu6": (_image(0.0, 1.0), _relu6),
    "mobile": (_image(-2.2, 2.7), _mobile),
    "unet": (_image(0.0, 1.0), _unet),
    "perceptron": (_rows(12), _perceptron),
    "encoder": (_text(400), _encoder),
    "bag": (_text(900), _bag),
    "wave": (Declared((("x", "float32", (1, 2, 128)),), {"x": (-1.0, 1.0)}), _wave),
    "recurrent": (Declared((("x", "float32", (2, 7, 6)),), {"x": (-3.0, 3.0)}), _recurrent),
    "variance": (_rows(10, -4.0, 4.0), _variance),
    "detector": (_image(0.0, 1.0), _detector),
    "gate": (_image(0.0, 1.0), _gate),
    "rounding": (_rows(12, -8.0, 8.0), _rounding),
    "steps": (_rows(8, -100.0, 100.0), _steps),
    "buckets": (_rows(8, -4.0, 4.0), _buckets),
    "powers": (_rows(10, -2.0, 4.0), _powers),
    "choice": (_rows(9, 0.0, 1.0), _choice),
}


def build(model: str) -> tuple[Declared, nn.Module]:
    """The net *model* with seeded weights, in eval."""
    declared, make = NETS[model]
    torch.manual_seed(sum(map(ord, model)))
    net = make()
    with torch.no_grad():
        for module in net.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.running_mean.normal_(0, 0.3)
                module.running_var.uniform_(0.1, 0.6)
                module.weight.uniform_(0.7, 1.5)
                module.bias.normal_(0, 0.3)
    return declared, net.eval()


def example(declared: Declared, seed: int = 1) -> tuple[Tensor, ...]:
    random = torch.Generator().manual_seed(seed)
    made = []
    for name, dtype, shape in declared.inputs:
        low, high = declared.ranges.get(name, (-1.0, 1.0))
        values = torch.rand(shape, generator=random) * (high - low) + low
        made.append(values.round().long() if dtype == "int64" else values)
    return tuple(made)


class One(nn.Module):
    """A net of the input ``x``."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net

    def forward(self, x: Tensor) -> Any:
        return self.net(x)


def made(model: str) -> tuple[nn.Module, tuple[Tensor, ...]]:
    declared, net = build(model)
    return One(net) if len(declared.inputs) == 1 else net, example(declared)
