"""Decisions on buffers and sizes; windows over an open length."""

import torch
import torch.nn.functional as F
from torch import nn


class PadBySize(nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.register_buffer("pad", torch.tensor(2), persistent=False)
        self.c = nn.Conv1d(3, 4, 3)

    def forward(self, x):
        if x.shape[-1] <= self.pad:
            x = F.pad(x, (0, 3))
        return self.c(x)


def pad_by_size():
    return PadBySize().eval(), {"x": torch.randn(2, 3, 16)}


class PadBySize2(nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.register_buffer("stride", torch.tensor(4), persistent=False)
        self.c = nn.Conv1d(3, 4, 8, 4)

    def forward(self, x):
        n = torch.ceil((x.shape[-1] - 8 + 4) / self.stride + 1).to(torch.int64) - 1
        extra = n * self.stride + 4 - x.shape[-1]
        return self.c(F.pad(x, (4, extra), mode="reflect"))


def pad_by_size2():
    return PadBySize2().eval(), {"x": torch.randn(2, 3, 16)}


class Strided(nn.Module):
    def forward(self, x):
        b, n, d = x.shape
        return x.contiguous().as_strided((b, n // 4 - 1, 8, d), (n * d, 4 * d, d, 1)).sum(2)


def strided():
    return Strided().eval(), {"x": torch.randn(2, 16, 4)}


class Unfold(nn.Module):
    def forward(self, x):
        return x.unfold(1, 8, 4).sum(-1)


def unfold():
    return Unfold().eval(), {"x": torch.randn(2, 16, 4)}
