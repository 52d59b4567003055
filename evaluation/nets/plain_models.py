"""Image nets at 224 x 224 written in plain PyTorch, as a user's own file would be: building them costs
nothing but torch.

Every function is a factory without arguments returning ``(model, example_inputs)``, seeded.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn


class Named(nn.Module):
    """Gives a net's input the name that the benchmark feeds."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net

    def forward(self, pixel_values: Tensor) -> Tensor:
        return self.net(pixel_values)


def _built(net: nn.Module) -> tuple[nn.Module, dict[str, Tensor]]:
    """*net* in eval, its BatchNorm statistics as they are on random images."""
    for module in net.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = 1.0
    with torch.no_grad():
        net.train()(torch.randn(2, 3, 224, 224))
    return Named(net).eval(), {"pixel_values": torch.randn(2, 3, 224, 224)}


def _conv(before: int, after: int, size: int = 3, stride: int = 1, groups: int = 1) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(before, after, size, stride, size // 2, groups=groups, bias=False),
        nn.BatchNorm2d(after),
        nn.ReLU(),
    )


class Residual(nn.Module):
    def __init__(self, before: int, after: int, stride: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            _conv(before, after, 3, stride),
            nn.Conv2d(after, after, 3, 1, 1, bias=False),
            nn.BatchNorm2d(after),
        )
        self.side = nn.Identity() if before == after and stride == 1 else nn.Conv2d(before, after, 1, stride)

    def forward(self, x: Tensor) -> Tensor:
        return torch.relu(self.body(x) + self.side(x))


def plain_resnet18() -> tuple[nn.Module, dict[str, Tensor]]:
    torch.manual_seed(0)
    widths = (
        (64, 64, 1),
        (64, 64, 1),
        (64, 128, 2),
        (128, 128, 1),
        (128, 256, 2),
        (256, 256, 1),
        (256, 512, 2),
        (512, 512, 1),
    )
    stem = [_conv(3, 64, 7, 2), nn.MaxPool2d(3, 2, 1)]
    return _built(
        nn.Sequential(
            *stem,
            *(Residual(*w) for w in widths),
            nn.AdaptiveAvgPool2d(1),
            nn.Flatten(),
            nn.Linear(512, 1000),
        )
    )


class Inverted(nn.Module):
    def __init__(self, before: int, after: int, stride: int) -> None:
        super().__init__()
        wide = before * 6
        tail = [nn.Conv2d(wide, after, 1, bias=False), nn.BatchNorm2d(after)]
        self.body = nn.Sequential(_conv(before, wide, 1), _conv(wide, wide, 3, stride, wide), *tail)
        self.same = before == after and stride == 1

    def forward(self, x: Tensor) -> Tensor:
        return x + self.body(x) if self.same else self.body(x)


def plain_mobilenet() -> tuple[nn.Module, dict[str, Tensor]]:
    torch.manual_seed(0)
    blocks = [Inverted(32, 24, 2)]
    for before, after, stride, count in (
        (24, 32, 2, 3),
        (32, 64, 2, 4),
        (64, 96, 1, 3),
        (96, 160, 2, 3),
        (160, 320, 1, 1),
    ):
        blocks += [
            Inverted(before if i == 0 else after, after, stride if i == 0 else 1) for i in range(count)
        ]
    tail = [_conv(320, 1280, 1), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(1280, 1000)]
    return _built(nn.Sequential(_conv(3, 32, 3, 2), *blocks, *tail))


class UNet(nn.Module):
    def __init__(self, width: int = 16) -> None:
        super().__init__()
        sizes = [width * 2**i for i in range(5)]
        self.down = nn.ModuleList(
            nn.Sequential(_conv(b, a), _conv(a, a)) for b, a in zip([3, *sizes], sizes, strict=False)
        )
        self.up = nn.ModuleList(nn.ConvTranspose2d(a * 2, a, 2, 2) for a in reversed(sizes[:-1]))
        self.join = nn.ModuleList(_conv(a * 2, a) for a in reversed(sizes[:-1]))
        self.head = nn.Conv2d(width, 4, 1)

    def forward(self, x: Tensor) -> Tensor:
        kept = []
        for number, step in enumerate(self.down):
            x = step(x if number == 0 else nn.functional.max_pool2d(x, 2))
            kept.append(x)
        for up, join, skip in zip(self.up, self.join, reversed(kept[:-1]), strict=True):
            x = join(torch.cat([up(x), skip], 1))
        return self.head(x)


def plain_unet() -> tuple[nn.Module, dict[str, Tensor]]:
    torch.manual_seed(0)
    return _built(UNet())


class ViT(nn.Module):
    def __init__(self, width: int = 192, depth: int = 12, heads: int = 3) -> None:
        super().__init__()
        self.patch = nn.Conv2d(3, width, 16, 16)
        self.place = nn.Parameter(torch.randn(1, 196, width) * 0.02)
        self.blocks = nn.ModuleList(
            nn.TransformerEncoderLayer(
                width, heads, width * 4, 0.0, nn.functional.relu, batch_first=True, norm_first=True
            )
            for _ in range(depth)
        )
        self.head = nn.Linear(width, 1000)

    def forward(self, x: Tensor) -> Tensor:
        x = self.patch(x).flatten(2).transpose(1, 2) + self.place
        for block in self.blocks:
            x = block(x)
        return self.head(x.mean(1))


def plain_vit() -> tuple[nn.Module, dict[str, Tensor]]:
    torch.manual_seed(0)
    return _built(ViT())


class Dense(nn.Module):
    def __init__(self, before: int, growth: int, count: int) -> None:
        super().__init__()
        self.steps = nn.ModuleList(_conv(before + i * growth, growth) for i in range(count))

    def forward(self, x: Tensor) -> Tensor:
        for step in self.steps:
            x = torch.cat([x, step(x)], 1)
        return x


def plain_densenet() -> tuple[nn.Module, dict[str, Tensor]]:
    torch.manual_seed(0)
    layers: list[nn.Module] = [_conv(3, 32, 7, 2), nn.MaxPool2d(3, 2, 1)]
    width = 32
    for count in (4, 8, 12):
        layers += [
            Dense(width, 16, count),
            _conv(width + 16 * count, (width + 16 * count) // 2, 1),
            nn.AvgPool2d(2),
        ]
        width = (width + 16 * count) // 2
    return _built(nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(width, 1000)))
