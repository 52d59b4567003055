"""Nets that a trace bakes a size into, each in a way seen in users' code; the line that does so ends in ``#
baked``.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.linear = nn.Linear(4, 4)
        self.conv = nn.Conv2d(3, 4, 3, padding=1)
        self.register_buffer("positions", torch.randn(64, 4))


class IntOfShape(Net):
    def forward(self, x: Tensor) -> Tensor:
        n = int(x.shape[0])
        return self.linear(x).reshape(n, 2, 2) * 2  # baked


class LengthByNumpy(Net):
    def forward(self, x: Tensor) -> Tensor:
        length = x.detach().numpy().shape[1]
        return self.linear(x) + self.positions[:length]  # baked


class PoolOfHeight(Net):
    def forward(self, x: Tensor) -> Tensor:
        height = int(x.shape[2])
        return nn.functional.avg_pool2d(self.conv(x), (height, 1))  # baked


class Expanded(Net):
    def forward(self, x: Tensor) -> Tensor:
        return self.linear(x) + self.positions[:1].expand(len(x.detach().numpy()), 4)  # baked


class Free(Net):
    def forward(self, x: Tensor) -> Tensor:
        return self.linear(x).reshape(x.shape[0], 2, 2)


class PaddedToFour(Net):
    """A branch on a size: where it is taken, the trace is right at every size."""

    def forward(self, x: Tensor) -> Tensor:
        length = x.shape[1]
        missing = (4 - length % 4) % 4
        if missing > 0:  # baked
            x = nn.functional.pad(x, (0, 0, 0, missing))
        sums = self.linear(x).reshape(x.shape[0], -1, 4, 4).cumsum(2).reshape(x.shape[0], -1, 4)
        return sums[:, :length] if missing > 0 else sums
