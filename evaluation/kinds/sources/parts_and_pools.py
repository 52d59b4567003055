"""Parts of parameters, and adaptive pooling of an open size."""

import torch
from torch import nn


class OnlySlice(nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.pos = nn.Parameter(torch.randn(1, 17, 32))
        self.fc = nn.Linear(32, 32)

    def forward(self, x):
        return self.fc(x + self.pos[:, 1:])


def only_slice():
    return OnlySlice().eval(), {"x": torch.randn(2, 16, 32)}


class OnlyAdd(nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.pos = nn.Parameter(torch.randn(1, 17, 32))
        self.cls = nn.Parameter(torch.randn(1, 1, 32))
        self.fc = nn.Linear(32, 32)

    def forward(self, x):
        return self.fc(torch.cat([(self.cls + self.pos[:, :1]).expand(x.shape[0], -1, -1), x], 1) + self.pos)


def only_add():
    return OnlyAdd().eval(), {"x": torch.randn(2, 16, 32)}


class SliceTwice(nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.pos = nn.Parameter(torch.randn(1, 17, 32))
        self.cls = nn.Parameter(torch.randn(1, 1, 32))
        self.fc = nn.Linear(32, 32)

    def forward(self, x):
        return self.fc(
            torch.cat([(self.cls * self.pos[:, :1]).expand(x.shape[0], -1, -1), x + self.pos[:, 1:]], 1)
        )


def slice_mul():
    return SliceTwice().eval(), {"x": torch.randn(2, 16, 32)}


class Adaptive(nn.Module):
    def __init__(self, n):
        super().__init__()
        self.p = nn.AdaptiveAvgPool2d(n)

    def forward(self, x):
        return self.p(x)


def adaptive2():
    return Adaptive(2).eval(), {"x": torch.randn(2, 3, 8, 8)}


class AdaptiveMax(nn.Module):
    def __init__(self, n):
        super().__init__()
        self.p = nn.AdaptiveMaxPool2d(n)

    def forward(self, x):
        return self.p(x)


def adaptivemax2():
    return AdaptiveMax(2).eval(), {"x": torch.randn(2, 3, 8, 8)}
